"""Muon against singular values, closed forms and a plain implementation."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from palestra.policies.config import LearnerConfig
from palestra.policies.learner import DeepSpeedLearner
from palestra.policies.muon import (
    COEFFICIENTS,
    ITERATIONS,
    newton_schulz,
    orthogonalised,
    rms_scale,
)
from palestra.policies.optimizers import parameter_groups, stacked_rows
from palestra.rl.objectives.k25 import K25
from palestra.rl.objectives.policy_loss import PolicyLoss
from palestra.rl.types import Batch, Sample

sizes = st.integers(1, 24)


def matrix(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def quintic(values: torch.Tensor) -> torch.Tensor:
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        values = a * values + b * values**3 + c * values**5
    return values


@settings(max_examples=30)
@given(rows=sizes, columns=sizes, seed=st.integers(0, 10_000))
def test_singular_values_go_through_the_quintic(rows: int, columns: int, seed: int) -> None:
    update = matrix(seed, rows, columns)
    before = torch.linalg.svdvals(update)
    expected = quintic(before / update.norm()).abs().sort(descending=True).values
    found = torch.linalg.svdvals(newton_schulz(update))
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=2e-4)


def test_singular_vectors_stay() -> None:
    update = matrix(3, 12, 7)
    u, _, vt = torch.linalg.svd(update, full_matrices=False)
    core = u.T @ newton_schulz(update) @ vt.T
    assert (core - core.diagonal().diag()).abs().max() < 1e-4
    assert (core.diagonal() > 0.6).all() and (core.diagonal() < 1.2).all()


@settings(max_examples=30)
@given(rows=sizes, columns=sizes)
def test_an_exact_orthogonal_update_has_the_rms_of_adamw(rows: int, columns: int) -> None:
    u, _, vt = torch.linalg.svd(matrix(rows, rows, columns), full_matrices=False)
    step = (u @ vt) * rms_scale(rows, columns)
    assert step.pow(2).mean().sqrt().item() == pytest.approx(0.2, rel=1e-4)


@settings(max_examples=30)
@given(heights=st.lists(st.integers(1, 9), min_size=1, max_size=3), columns=sizes, experts=sizes)
def test_stacked_matrices_are_orthogonalised_one_by_one(
    heights: list[int], columns: int, experts: int
) -> None:
    stack = matrix(columns, experts, sum(heights), columns)
    found = orthogonalised(stack, heights)
    for update, one in zip(stack, found, strict=True):
        for part, own in zip(update.split(heights), one.split(heights), strict=True):
            expected = newton_schulz(part) * rms_scale(*part.shape)
            torch.testing.assert_close(own, expected, atol=1e-4, rtol=1e-3)


def toy_moe() -> Any:
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    shape = Qwen3MoeConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=24,
        moe_intermediate_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        num_experts=4,
        num_experts_per_tok=2,
        attention_bias=True,
        mlp_only_layers=[0],
    )
    return Qwen3MoeForCausalLM(shape)


def test_every_parameter_is_in_exactly_one_group() -> None:
    model = toy_moe()
    model.conv = nn.Conv1d(4, 4, 3)
    model.down_proj_bias = nn.Parameter(torch.zeros(4, 16))
    frozen = model.model.layers[1].mlp.gate.weight.requires_grad_(False)
    groups = parameter_groups(model, LearnerConfig())
    seen = Counter(p for group in groups for p in group["params"])
    assert set(seen) == set(model.parameters()) - {frozen}
    assert set(seen.values()) == {1}
    muon = set(groups[0]["params"])
    assert [group["muon"] for group in groups] == [True, False]
    names = {name: p in muon for name, p in model.named_parameters() if p is not frozen}
    for name, by_muon in names.items():
        adamw = ("embed_tokens", "lm_head", "norm", "bias", "conv")
        assert by_muon != any(part in name for part in adamw), name
    assert names["model.layers.1.mlp.experts.gate_up_proj"]


@pytest.mark.parametrize(
    ("name", "shape", "rows"),
    [
        ("layers.0.mlp.experts.gate_up_proj", (4, 24, 16), (12, 12)),
        ("layers.0.mlp.gate_up_proj.weight", (24, 16), (12, 12)),
        ("layers.0.mlp.experts.gate_up_proj", (4, 16, 24), ()),  # transposed: side by side
        ("layers.0.mlp.experts.down_proj", (4, 16, 12), ()),
        ("layers.0.self_attn.qkv_proj.weight", (32, 16), (16, 8, 8)),
        ("layers.0.self_attn.q_proj.weight", (16, 16), ()),
        ("norm.weight", (16,), ()),
    ],
)
def test_fused_matrices_are_known_by_name_and_shape(
    name: str, shape: tuple[int, ...], rows: tuple[int, ...]
) -> None:
    assert stacked_rows(name, shape, toy_moe().config) == rows


# In the learner: a real DeepSpeed engine.


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    """Takes back what the learner puts into the environment of its process."""
    before = set(os.environ)
    yield
    for name in set(os.environ) - before - {"PYTEST_CURRENT_TEST"}:
        del os.environ[name]


def supervised(seed: int, vocabulary: int = 400) -> Batch:
    """Four sequences of random tokens, all to be learned."""
    rng = random.Random(seed)
    samples = []
    for _ in range(4):
        size = rng.randrange(8, 30)
        samples.append(
            Sample(
                token_ids=tuple(rng.randrange(vocabulary) for _ in range(size)),
                loss_mask=(False,) * size,
                logprobs=(0.0,) * size,
                advantages=(0.0,) * size,
                ptx=(1.0,) * size,
            )
        )
    return Batch(step=seed, samples=tuple(samples))


def start(folder: Path, **config: Any) -> DeepSpeedLearner:
    known: dict[str, Any] = {"optimizer": "muon", "lr": 1e-3, "threads": 1, "row_tokens": 32}
    settings = LearnerConfig(**known | config)
    return DeepSpeedLearner(
        str(folder), settings, PolicyLoss(objective=K25(alpha=0.5, beta=2.0, tau=0.05))
    )


def weights(learner: DeepSpeedLearner) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in learner.named_weights()}


@pytest.mark.parametrize("zero_stage", [1, 2, 3])
def test_a_step_is_muon_on_the_clipped_gradient(
    tiny: Path, gradients_of: Callable[..., Any], zero_stage: int
) -> None:
    lr, decay, clip = 1e-3, 0.1, 0.01
    learner = start(tiny, zero_stage=zero_stage, weight_decay=decay, grad_clip=clip)
    model = learner.engine.module.model
    matrices = {name for name, _ in model.named_parameters() if "proj" in name}
    assert len(matrices) == 14
    expected = weights(learner)
    momentum = {name: torch.zeros_like(expected[name]) for name in matrices}
    others = [expected[name].requires_grad_() for name in expected if name not in matrices]
    adamw = torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=decay)
    for seed in range(3):
        gradients, _ = gradients_of(learner, supervised(seed))
        norm = torch.cat([g.flatten() for g in gradients.values()]).norm()
        for name, weight in expected.items():
            gradient = gradients[name] * (clip / norm)
            weight.grad = gradient
            if name in matrices:
                momentum[name] = 0.95 * momentum[name] + gradient
                update = newton_schulz(0.95 * momentum[name] + gradient)
                update = update * 0.2 * max(weight.shape) ** 0.5
                expected[name] = weight - lr * (update + decay * weight)
        adamw.step()
        found = weights(learner)
        for name, weight in expected.items():
            torch.testing.assert_close(found[name], weight.detach(), atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("zero_stage", [1, 2, 3])
def test_a_learning_rate_of_zero_moves_no_bit(tiny: Path, zero_stage: int) -> None:
    learner = start(tiny, zero_stage=zero_stage, weight_decay=0.1)
    learner.config = learner.config.model_copy(update={"lr": 0.0})
    before = weights(learner)
    learner.learn(supervised(0))
    after = weights(learner)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("zero_stage", [2, 3])
def test_a_checkpoint_holds_the_momentum(tiny: Path, tmp_path: Path, zero_stage: int) -> None:
    learner = start(tiny, zero_stage=zero_stage)
    for seed in range(2):
        learner.learn(supervised(seed))
    learner.save(str(tmp_path / "step-2"))
    learner.learn(supervised(2))
    after = weights(learner)
    for restored in (start(tiny, zero_stage=zero_stage), learner):
        restored.load(str(tmp_path / "step-2"))
        restored.learn(supervised(2))
        found = weights(restored)
        assert all(torch.equal(found[name], after[name]) for name in after)
