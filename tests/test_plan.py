"""``palestra plan``: arithmetic by hand, shipped recipes, and recipes that do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from palestra.deploy.cli import main
from palestra.deploy.config import RunConfig
from palestra.deploy.config_file import load_recipe
from palestra.deploy.plan.advice import SWITCHES, WITHOUT_EFFECT
from palestra.deploy.plan.batches import batches_of
from palestra.deploy.plan.memory import GIB, activations, states
from palestra.policies.config import LearnerConfig
from palestra.policies.shape import ModelShape

RECIPES = Path(__file__).parents[1] / "recipes"
SHAPE = ModelShape(
    total=1000,
    active=1000,
    embedding=100,
    experts=0,
    matrices=600,
    largest_layer=200,
    largest_tensor=100,
    adapter=10,
    layers=4,
    hidden=8,
    vocabulary=50,
    kept=(64, 100),
    cached=16,
    kv_heads=2,
)


@pytest.mark.parametrize(
    ("stage", "weights", "gradients", "masters"),
    [(1, 2000, 2000, 3000), (2, 2000, 500, 3000), (3, 500, 500, 3000)],
)
def test_states_are_dealt_out_by_stage(
    stage: int, weights: float, gradients: float, masters: float
) -> None:
    """Four ranks, 2 + 2 bytes in bfloat16, 12 in float32."""
    learner = LearnerConfig(dtype="bfloat16", zero_stage=stage)  # type: ignore[arg-type]
    found = states(SHAPE, learner, 4, lora=False)
    assert list(found.values()) == [weights, gradients, masters]


def test_muon_has_one_moment_for_a_matrix_and_adapters_alone_have_states() -> None:
    muon = LearnerConfig(dtype="bfloat16", optimizer="muon")
    assert states(SHAPE, muon, 1, lora=False)["masters and moments"] == 12_000 - 4 * 600
    adapters = states(SHAPE, LearnerConfig(dtype="bfloat16"), 1, lora=True)
    assert list(adapters.values()) == [2 * 1010, 2 * 10, 12 * 10]


def test_checkpointed_layers_keep_their_inputs_and_one_layer() -> None:
    learner = LearnerConfig(dtype="bfloat16", logprob_chunk=3)
    logits = 3 * 50 * 16
    layer = 7 * (64 + 200)
    assert activations(SHAPE, learner, 7) == 4 * layer + logits
    again = learner.model_copy(update={"gradient_checkpointing": True})
    assert activations(SHAPE, again, 7) == 4 * 7 * 8 * 2 + layer + logits


def test_a_step_is_counted_from_tasks_to_micro_batches() -> None:
    config = RunConfig.model_validate(
        {
            "policy": {
                "num_gpus": 2,
                "learner": {"row_tokens": 1000, "micro_batch_tokens": 4000},
            },
            "rollout": {"max_context_length": 300, "max_in_flight": 50},
            "rl": {
                "train_batch_size": 10,
                "n_samples_per_prompt": 8,
                "mini_batches": 4,
                "budget": {"default": 100, "by_kind": {"long": 250}},
                "eval": {"splits": ["a", "b"], "limit": 30, "samples": 2},
            },
        }
    )
    found = batches_of(config)
    assert (found.episodes, found.waves, found.generated) == (80, 2, 80 * 250)
    # At most 3 tasks or 24 episodes an update, three in a row of 1000 tokens: 8 rows, 4 at once.
    assert (found.updates, found.episodes_per_update, found.staleness) == (4, 24, 3)
    assert (found.micro_batches, found.micro_batch_tokens) == (1, 4000)
    assert found.evaluation == 120


PLANS = {
    "qwen3-4b.toml": ("h200", "qwen3-4b", 4.02e9, []),
    "qwen3-4b-lora.toml": ("h200", "qwen3-4b", 4.02e9, []),
    "qwen3-8b.toml": ("h100", "qwen3-8b", 8.19e9, []),
    "qwen3-30b-a3b.toml": ("h200", "qwen3-30b-a3b", 30.53e9, []),
    "kimi-k2.toml": (
        "h200",
        "kimi-k2",
        1026e9,
        ["--engine-gpus", "16", "--expert-bits", "4"],
    ),
}


@pytest.mark.parametrize("name", PLANS)
def test_shipped_recipes_fit_and_say_nothing_in_vain(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu, model, parameters, paper = PLANS[name]
    config = str(RECIPES / "models" / f"{model}.json")
    command = ["plan", str(RECIPES / name), "--gpu", gpu, "--model-config", config, *paper]
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"]["total"] == pytest.approx(parameters, rel=1e-3)
    assert (found["warnings"], found["without_effect"]) == ([], [])
    assert len(found["refusals"]) == (2 if paper else 0)
    biggest = max(phase["total"] for phase in found["phases"].values())
    assert 0.3 < biggest / (found["gpu"]["gib"] * GIB) <= 1
    assert main(command) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "fits"


def test_every_recipe_has_a_plan() -> None:
    assert {path.name for path in RECIPES.glob("*.toml")} == {*PLANS, "tiny.toml"}


def test_what_does_not_fit_is_found_problems(capsys: pytest.CaptureFixture[str]) -> None:
    config = str(RECIPES / "models" / "qwen3-30b-a3b.json")
    command = ["plan", str(RECIPES / "qwen3-30b-a3b.toml"), "--model-config", config]
    assert main([*command, "--gpu", "l40s"]) == 1
    said = capsys.readouterr().out
    assert "DOES NOT FIT" in said and "KV cache   0 tokens" in said


def test_keys_that_nothing_reads_are_named_with_their_place(
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = str(RECIPES / "tiny.toml")
    more = ["--set", "rl.toggle.period=3", "--set", "policy.learner.momentum=0.9"]
    more += ["--set", "rl.critic.min_accuracy=0.6"]
    assert main(["plan", recipe, "--set", "rl.ptx.coef=0", *more]) == 0
    said = capsys.readouterr().out
    assert "no effect: rl.toggle.period (--set) has no effect without rl.toggle.enable" in said
    assert "no effect: policy.learner.momentum (--set)" in said
    assert "no effect: rl.critic.min_accuracy (--set) has no effect without rl.critic.freq" in said
    assert "no effect: rl.ptx.samples_per_step" in said
    assert "rl.ptx.coef" not in said.replace("without rl.ptx.coef", "")


def test_rules_name_keys_that_exist() -> None:
    known = load_recipe(None).sources
    for prefix, _, _ in WITHOUT_EFFECT:
        assert any(key == prefix or key.startswith(prefix) for key in known), prefix
    assert set(known) >= SWITCHES


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--gpu", "abacus"], "--gpu abacus: not one of l40s"),
        (["--model-config", "/nowhere.json"], "/nowhere.json: No such file"),
        (["--model-config", str(RECIPES / "tiny.toml")], "tiny.toml: no model's config.json"),
        (
            ["--set", "policy.model=nowhere"],
            "nowhere/config.json: No such file or directory; name a config.json",
        ),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", str(RECIPES / "tiny.toml"), *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
