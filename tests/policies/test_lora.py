"""Adapters on a real DeepSpeed learner: what is trained, what is saved, and what it computes."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from palestra.policies.config import LearnerConfig, LoraConfig, PolicyConfig
from palestra.policies.learner import DeepSpeedLearner
from palestra.policies.lora import create
from palestra.policies.module import load_policy
from palestra.policies.reference import Reference
from palestra.rl.errors import UserError
from palestra.rl.objectives.k25 import K25
from palestra.rl.objectives.kl import KlPenalty
from palestra.rl.objectives.policy_loss import PolicyLoss
from palestra.rl.types import Batch, Sample

RANK, ALPHA = 4, 12
SEQUENCES = [[5, 6, 7, 8, 9], [40, 30, 20]]
MakeLearner: TypeAlias = Callable[..., DeepSpeedLearner]


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    """Takes back what the learner puts into the environment of its process."""
    before = set(os.environ)
    yield
    for name in set(os.environ) - before - {"PYTEST_CURRENT_TEST"}:
        del os.environ[name]


@pytest.fixture(scope="module")
def adapter(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lora") / "adapter"
    create(tiny, folder, LoraConfig(rank=RANK, alpha=ALPHA), seed=1)
    return folder


@pytest.fixture
def make_learner(tiny: Path, adapter: Path) -> MakeLearner:
    def make(*, plain: bool = False, kl: KlPenalty | None = None, **config: Any) -> Any:
        known = {"lr": 1e-2, "threads": 1, "row_tokens": 64, "micro_batch_tokens": 128}
        return DeepSpeedLearner(
            str(tiny),
            LearnerConfig(**known | config),
            PolicyLoss(objective=K25(alpha=0.5, beta=2.0, tau=0.05), kl=kl),
            adapter=None if plain else str(adapter),
        )

    return make


def batch(seed: int) -> Batch:
    rng = random.Random(seed)
    samples = [
        Sample(
            token_ids=tuple(rng.randrange(400) for _ in range(20)),
            loss_mask=(False, *(True,) * 19),
            logprobs=(0.0, *(-6.0,) * 19),
            advantages=(0.0, *(advantage,) * 19),
            ptx=(0.0,) * 20,
        )
        for advantage in (1.0, -1.0, 0.5)
    ]
    return Batch(step=1, samples=tuple(samples))


def weights(learner: DeepSpeedLearner) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in learner.named_weights()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


@pytest.mark.parametrize("zero_stage", [2, 3])
def test_adapters_alone_are_trained_and_come_back_to_the_bit(
    make_learner: MakeLearner, tmp_path: Path, zero_stage: int
) -> None:
    learner = make_learner(zero_stage=zero_stage)
    plain = make_learner(plain=True, zero_stage=zero_stage)
    assert learner.logprobs(SEQUENCES) == plain.logprobs(SEQUENCES)  # B is zero
    start = weights(learner)
    learner.learn(batch(1))
    learner.learn(batch(2))
    moved = {
        name for name, tensor in weights(learner).items() if not torch.equal(tensor, start[name])
    }
    assert moved == {name for name in start if ".lora_" in name}
    learner.save(str(tmp_path / "saved"))
    learner.learn(batch(3))
    straight = weights(learner)
    learner.load(str(tmp_path / "saved"))
    learner.learn(batch(3))
    assert same(weights(learner), straight)


def test_a_checkpoint_is_base_plus_scaled_b_a_and_an_adapter_that_peft_loads(
    make_learner: MakeLearner, tiny: Path, tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    learner = make_learner()
    learner.learn(batch(1))
    learner.learn(batch(2))
    learner.save(str(tmp_path / "saved"))
    base = load_file(tiny / "model.safetensors")
    saved = load_file(tmp_path / "saved" / "model.safetensors")
    lora = load_file(tmp_path / "saved" / "adapter" / "adapter_model.safetensors")
    for name, tensor in base.items():
        layer = "base_model.model." + name.removesuffix(".weight")
        if f"{layer}.lora_A.weight" in lora:
            a, b = (lora.pop(f"{layer}.lora_{side}.weight") for side in "AB")
            assert a.shape[0] == b.shape[1] == RANK
            tensor = tensor + ALPHA / RANK * (b @ a)
        assert torch.equal(saved.pop(name), tensor), name
    assert not saved and not lora
    ids = torch.tensor(SEQUENCES[:1])
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    frozen = AutoModelForCausalLM.from_pretrained(tiny)
    adapted = PeftModel.from_pretrained(frozen, tmp_path / "saved" / "adapter")
    assert adapted.peft_config["default"].base_model_name_or_path == str(tiny)
    torch.testing.assert_close(adapted(ids).logits, merged(ids).logits)


def test_the_reference_is_the_model_without_its_adapter(
    make_learner: MakeLearner, tiny: Path
) -> None:
    penalty = KlPenalty(coef=0.3, type="k3")
    own, copied = make_learner(kl=penalty), make_learner(kl=penalty)
    copied.reference = Reference(load_policy(str(tiny), copied.config), copied.device)
    for seed in (1, 2):
        metrics = own.learn(batch(seed))
        assert metrics == copied.learn(batch(seed))
    assert metrics["actor/kl_loss"] > 0
    assert same(weights(own), weights(copied))


def test_layers_that_the_model_does_not_have_are_named(tiny: Path, tmp_path: Path) -> None:
    config = LoraConfig(target_modules=["q_proj", "qproj", "lm_head"])
    with pytest.raises(UserError, match="no linear layers lm_head, qproj; it has down_proj, gate_"):
        create(tiny, tmp_path / "adapter", config, seed=0)
    assert not (tmp_path / "adapter").exists()


@pytest.mark.parametrize(
    ("lora", "learner", "message"),
    [
        ({}, {"optimizer": "muon"}, "needs learner.optimizer"),
        ({}, {"qk_clip": True}, "qk_clip"),
        ({"rank": 0}, {}, "greater than or equal to 1"),
        ({"rank": 513}, {}, "less than or equal to 512"),
        ({"target_modules": []}, {}, "at least 1 item"),
    ],
)
def test_what_adapters_cannot_do_is_refused(
    lora: dict[str, Any], learner: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        PolicyConfig.model_validate({"lora": {"enable": True, **lora}, "learner": learner})
