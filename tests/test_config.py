"""Recipes: read, overridden, explained; every mistake is one helpful line."""

from __future__ import annotations

from pathlib import Path

import pytest

from palestra.deploy.config import RunConfig
from palestra.deploy.config_file import describe_keys, dump, flatten, load_recipe
from palestra.deploy.toml_lines import key_lines
from palestra.rl.errors import UserError

RECIPE = """\
name = "mine"

[rl]  # the loop
steps = 3
budget.by_kind = { repair = 96 }

[policy.learner]
betas = [0.8, 0.9]
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(RECIPE)
    return path


def test_values_and_sources(recipe: Path) -> None:
    resolved = load_recipe(recipe, ["policy.learner.lr=1e-4", "rl.budget.by_kind.mbpp=5"])
    assert resolved.config.rl.steps == 3
    assert resolved.config.policy.learner.betas == (0.8, 0.9)
    assert resolved.config.policy.learner.lr == 1e-4
    assert resolved.config.rl.budget.by_kind == {"repair": 96, "mbpp": 5}
    assert resolved.sources["rl.steps"] == f"{recipe}:4"
    assert resolved.sources["policy.learner.lr"] == "--set"
    assert resolved.sources["rl.budget.by_kind"] == "--set"
    assert resolved.sources["seed"] == "default"
    assert list(resolved.sources) == list(flatten(resolved.config))


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("rl.steps=5", "rl.steps", 5),
        ("rl.steps = 5", "rl.steps", 5),
        ("name=2024", "name", "2024"),
        ("rl.budget.by_kind={repair = 7}", "rl.budget.by_kind", {"repair": 7}),
        ('rl.ptx.files={"data/a.jsonl" = 0.5}', "rl.ptx.files", {"data/a.jsonl": 0.5}),
        ('name="a b"', "name", "a b"),
        ("name=x=y", "name", "x=y"),
        ("tasks.system_prompt=", "tasks.system_prompt", ""),
        ("logger=['jsonl']", "logger", ["jsonl"]),
        ("rl.norm_adv_by_std=true", "rl.norm_adv_by_std", True),
        ("policy.learner.lr=1", "policy.learner.lr", 1.0),
        ("policy.model=/models/a", "policy.model", "/models/a"),
        ("name=a\nseed = 9", "name", "a\nseed = 9"),
        ("rl.eval={freq = 2}", "rl.eval.freq", 2),
        ("rl.objective.tau=0.5", "rl.objective.tau", 0.5),
        ("rl.objective.name=dapo", "rl.objective.clip_ratio_high", 0.28),
        ("rl.objective={name = 'k2', tau = 2}", "rl.objective.tau", 2.0),
    ],
)
def test_overrides(recipe: Path, override: str, key: str, value: object) -> None:
    assert flatten(load_recipe(recipe, [override]).config)[key] == value


def test_the_keys_are_those_of_the_chosen_objective(recipe: Path) -> None:
    resolved = load_recipe(recipe, ["rl.objective.name=grpo", "rl.objective.clip_ratio_low=0.1"])
    keys = {key for key in flatten(resolved.config) if key.startswith("rl.objective.")}
    names = ("name", "clip_ratio_low", "clip_ratio_high", "clip_ratio_c")
    assert keys == {f"rl.objective.{name}" for name in names}
    assert set(resolved.sources) == set(flatten(resolved.config))
    assert resolved.sources["rl.objective.name"] == "--set"


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["rl.objective.name=ppo2"], 'rl.objective = {"name": "ppo2"}: should be a table whose'),
        (["rl.objective=5"], "rl.objective = 5: should be a table whose name is k25, k15, "),
        (
            ["rl.objective.name=grpo", "rl.objective.alpha=0.5"],
            "--set: rl.objective.alpha is no key of grpo",
        ),
        (
            ["rl.objective.alhpa=0.5"],
            "unknown key rl.objective.alhpa; did you mean rl.ob",
        ),
        (["rl.objective.alpha=2"], "rl.objective.alpha = 2: should be less than 1"),
        (["rl.objective.name=plugin"], "rl.objective.plugin = "),
        (["rl.mismatch.correction=tis"], 'needs old_logprobs = "learner"'),
    ],
)
def test_wrong_objectives(recipe: Path, overrides: list[str], says: str) -> None:
    _fails(recipe, says, *overrides)


def test_keys_that_do_not_go_together_are_named_without_their_tables(recipe: Path) -> None:
    says = '--set: policy: lora.enable needs learner.optimizer = "adamw"'
    _fails(recipe, says, "policy.lora.enable=true", "policy.learner.optimizer=muon")


def test_the_last_override_wins(recipe: Path) -> None:
    assert load_recipe(recipe, ["rl.steps=5", "rl.steps=6"]).config.rl.steps == 6


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("rl.stepz=1", "--set: unknown key rl.stepz; did you mean rl.steps?"),
        ("steps=1", "did you mean rl.steps?"),
        ("learner.lr=1", "did you mean policy.learner.lr?"),
        ("group_size=1", "did you mean rl.n_samples_per_prompt?"),
        ("rl.steps.x=1", "unknown key rl.steps.x"),
        ("zzzzzzzz=1", "palestra config RECIPE lists every key"),
        ("rl.steps=many", '--set: rl.steps = "many": should be a valid integer'),
        ("rl.steps=true", "rl.steps = true: should be a valid integer"),
        ("rl.steps=-1", "rl.steps = -1: should be greater than or equal to 0"),
        ("rl=5", "rl = 5: should be a table"),
        (
            "sandbox.backend=podman",
            "should be 'auto', 'bubblewrap', 'landlock', 'docker' or 'kubernetes'",
        ),
        ("rl.steps", "write --set key=value"),
        ("=5", "write --set key=value"),
    ],
)
def test_wrong_overrides(recipe: Path, override: str, says: str) -> None:
    _fails(recipe, says, override)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[rl]\nstepz = 1", "unknown key rl.stepz; did you mean rl.steps?"),
        ("[rl]\nsteps = '5'", 'rl.steps = "5": should be a valid integer'),
        ("rl = 5", "rl = 5: should be a table"),
        ("[learner]\nlr = 1.0", "unknown key learner; did you mean policy.learner?"),
        ("a = [", "not valid TOML"),
        ("[rl.budget]\nby_kind = {a = 'x'}", 'rl.budget.by_kind.a = "x"'),
    ],
)
def test_wrong_recipes(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    _fails(path, f"{path}: ")
    _fails(path, says)


def test_unreadable_recipes(tmp_path: Path) -> None:
    _fails(tmp_path / "none.toml", "there is no such recipe")
    _fails(tmp_path, "cannot be read")
    (tmp_path / "latin").write_bytes(b"name = '\xff'")
    _fails(tmp_path / "latin", "not UTF-8")


def _fails(path: Path, says: str, *overrides: str) -> None:
    with pytest.raises(UserError) as raised:
        load_recipe(path, overrides)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_dump_reads_back_the_same(tmp_path: Path, recipe: Path) -> None:
    grpo = load_recipe(recipe, ["rl.objective.name=grpo"]).config
    for config in (load_recipe(recipe).config, RunConfig(), grpo):
        (tmp_path / "again.toml").write_text(dump(config))
        assert load_recipe(tmp_path / "again.toml").config == config


def test_every_key_is_described() -> None:
    rows = {row.key: row for row in describe_keys()}
    assert set(flatten(RunConfig())) <= set(rows)
    assert all(row.doc for row in describe_keys())
    assert rows["rl.steps"].type == "int"
    assert rows["rl.steps"].default == 40
    assert rows["rl.steps"].doc.startswith("Optimizer steps")
    assert rows["rollout.dialect"].type == '"qwen3_coder" | "hermes"'


def test_key_lines() -> None:
    text = 'a = 1\n[ b . c ] # x\n"d" = 2\ne.f = 3\n'
    assert key_lines(text) == {"a": 1, "b.c.d": 3, "b.c.e.f": 4}


@pytest.mark.parametrize("recipe_file", sorted(Path("recipes").glob("*.toml")))
def test_shipped_recipes_load(recipe_file: Path) -> None:
    load_recipe(recipe_file)
