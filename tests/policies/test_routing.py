"""Recorded experts: packed beside their tokens, compared, and taken over with their gradients."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn
from torch.nn import functional

from palestra.policies.attention import sequences_of
from palestra.policies.config import LearnerConfig, PolicyConfig, TinyConfig
from palestra.policies.learner import DeepSpeedLearner
from palestra.policies.module import load_policy
from palestra.policies.packing import micro_batches
from palestra.policies.routers import NO_RECORD, Routers
from palestra.policies.routing import has_experts, record_of
from palestra.policies.tiny import build
from palestra.policies.tiny_shapes import EXPERTS_PER_TOKEN, shape_of
from palestra.rl.errors import UserError
from palestra.rl.objectives.k25 import K25
from palestra.rl.objectives.policy_loss import PolicyLoss
from palestra.rl.types import Batch, Routing, Sample

SMALL: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "heads": 2, "kv_heads": 1}
LAYERS, EXPERTS = 2, 4
ARCHITECTURES = ["qwen3_moe", "deepseek_v3"]


def sample(ids: Sequence[int], prompt: int, routing: Routing | None) -> Sample:
    mask = tuple(t >= prompt for t in range(len(ids)))
    return Sample(
        token_ids=tuple(ids),
        loss_mask=mask,
        logprobs=tuple(-6.0 if m else 0.0 for m in mask),
        advantages=tuple(1.0 if m else 0.0 for m in mask),
        ptx=(0.0,) * len(ids),
        routing=routing,
    )


def telltale(ids: Sequence[int]) -> Routing:
    """Experts that say which token they belong to; the last token has none."""
    tokens = np.array(ids[:-1], dtype=np.uint16)[:, None, None]
    return record_of(tokens + np.arange(LAYERS * 2, dtype=np.uint16).reshape(LAYERS, 2))


@given(
    st.lists(
        st.lists(st.tuples(st.integers(1, 5), st.booleans()), min_size=1, max_size=3), max_size=4
    )
)
def test_every_packed_token_has_its_own_record(families: list[list[tuple[int, bool]]]) -> None:
    samples, unrecorded = [], set()
    for number, members in enumerate(families):
        prompt = [1000 * number + t for t in range(1, 4)]
        for sibling, (length, recorded) in enumerate(members):
            reply = [1000 * number + 100 * (sibling + 1) + t for t in range(length)]
            ids = [*prompt, *reply]
            samples.append(sample(ids, 3, telltale(ids) if recorded else None))
            unrecorded.update(reply[-1:] if recorded else reply)
        if not any(recorded for _, recorded in members):
            unrecorded.update(prompt)
    for micro in micro_batches(samples, row_tokens=24, micro_batch_tokens=48):
        ids = micro.token_ids[..., None, None]
        missing = torch.isin(ids, torch.tensor(sorted(unrecorded))) | (micro.segments == 0).reshape(
            ids.shape
        )
        expected = ids + torch.arange(LAYERS * 2).reshape(LAYERS, 2)
        if micro.experts is None:
            assert missing.all()
        else:
            assert torch.equal(micro.experts.long(), torch.where(missing, NO_RECORD, expected))


class Block(nn.Module):
    """The experts of one layer, where a policy has its model."""

    def __init__(self, architecture: Any) -> None:
        super().__init__()
        from transformers import AutoModelForCausalLM

        torch.manual_seed(0)
        config = TinyConfig(**SMALL, layers=LAYERS, experts=EXPERTS, architecture=architecture)
        self.model = AutoModelForCausalLM.from_config(shape_of(config)).float()
        self.experts = self.model.model.layers[1].mlp
        for parameter in self.experts.parameters():
            nn.init.normal_(parameter, std=0.5)

    def forward(self, micro: Any) -> torch.Tensor:
        out: torch.Tensor = self.experts(micro.hidden)
        return out


def plain(experts: Any, hidden: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Token by token: a weighted sum over the chosen experts, and the shared one where there is."""
    gate, rows = experts.gate, []
    for x, own in zip(hidden[0], chosen, strict=True):
        logits = gate.weight @ x
        shared = hasattr(gate, "e_score_correction_bias")
        scores = (torch.sigmoid(logits) if shared else torch.exp(logits))[own]
        weights = scores / scores.sum() * getattr(gate, "routed_scaling_factor", 1.0)
        row = experts.shared_experts(x) if shared else torch.zeros_like(x)
        for weight, e in zip(weights, own.tolist(), strict=True):
            first, second = (experts.experts.gate_up_proj[e] @ x).chunk(2)
            row = row + weight * experts.experts.down_proj[e] @ (functional.silu(first) * second)
        rows.append(row)
    return torch.stack(rows)[None]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_replay_is_the_plain_formula_with_its_gradients(architecture: str) -> None:
    block = Block(architecture)
    torch.manual_seed(1)
    hidden = torch.randn(1, 6, 32, requires_grad=True)
    with torch.no_grad():
        own = block.experts.gate(hidden)[2]
    recorded = torch.stack([torch.randperm(EXPERTS)[:EXPERTS_PER_TOKEN] for _ in range(6)])
    recorded[4:] = NO_RECORD
    experts = torch.full((1, 6, LAYERS, EXPERTS_PER_TOKEN), 3)
    experts[0, :, 1] = recorded
    micro = SimpleNamespace(hidden=hidden, experts=experts, policy=torch.tensor([True]))
    watched = [hidden, *block.experts.parameters()]

    Routers(block, replay=True)
    got = block(micro)
    expected = plain(block.experts, hidden, torch.where(recorded < 0, own, recorded))
    assert torch.allclose(got, expected, atol=1e-5)
    assert not torch.allclose(got, plain(block.experts, hidden, own), atol=1e-2)
    pull = torch.randn_like(got)
    for a, b in zip(
        torch.autograd.grad((got * pull).sum(), watched),
        torch.autograd.grad((expected * pull).sum(), watched),
        strict=True,
    ):
        assert torch.allclose(a, b, atol=1e-4) and a.abs().sum() > 0


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("experts")
    shape = TinyConfig(
        **SMALL, vocab_size=400, layers=LAYERS, experts=EXPERTS, architecture="qwen3_moe"
    )
    build(folder, shape, ["def add(a, b):\n"], [], seed=0)
    return folder


def learner(folder: Path, **config: Any) -> DeepSpeedLearner:
    loss = PolicyLoss(objective=K25(alpha=0.5, beta=2.0, tau=0.05))
    return DeepSpeedLearner(str(folder), LearnerConfig(lr=1e-2, threads=1, **config), loss)


def test_a_run_measures_and_replays_what_was_recorded(experts: Path) -> None:
    ids = list(range(5, 25))
    plain_policy = load_policy(str(experts), LearnerConfig())
    seen: list[torch.Tensor] = []
    for layer in plain_policy.model.model.layers:
        layer.mlp.gate.register_forward_hook(lambda m, args, out: seen.append(out[2]))
    with torch.no_grad():
        one = torch.ones(1, len(ids), dtype=torch.long)
        plain_policy.model(input_ids=torch.tensor([ids]), sequences=sequences_of(one, one))
    own = torch.stack(seen, 1).numpy()[:-1].astype(np.uint8)
    others = (own + 1) % EXPERTS
    shared = np.mean((own[..., :, None] == others[..., None, :]).any(-1))

    def step(routed: np.ndarray | None, **config: Any) -> tuple[dict[str, float], Any]:
        one = learner(experts, **config)
        routing = None if routed is None else record_of(routed)
        metrics = dict(one.learn(Batch(step=1, samples=(sample(ids, 8, routing),))))
        return metrics, {name: tensor.clone() for name, tensor in one.named_weights()}

    _, without = step(None)
    same, measured = step(own)
    assert same["mismatch/router_diff_frac"] == 0 == same["mismatch/router_logprob_gap"]
    differ, unmoved = step(others)
    assert differ["mismatch/router_diff_frac"] == pytest.approx(1 - shared)
    assert differ["mismatch/router_logprob_gap"] > 0
    assert all(torch.equal(without[n], measured[n]) for n in without)
    assert all(torch.equal(without[n], unmoved[n]) for n in without)

    kept, replayed = step(own, router_replay=True)
    assert all(torch.allclose(without[n], replayed[n], atol=1e-6) for n in without)
    moved, taken = step(others, router_replay=True)
    assert kept["mismatch/kl"] == pytest.approx(same["mismatch/kl"], abs=1e-6)
    assert moved["mismatch/kl"] != pytest.approx(kept["mismatch/kl"], rel=1e-3)
    assert any(not torch.allclose(without[n], taken[n], atol=1e-6) for n in without)
    sharded, _ = step(others, router_replay=True, zero_stage=3)
    assert sharded["mismatch/kl"] == pytest.approx(moved["mismatch/kl"], rel=1e-4)
    with pytest.raises(UserError, match="engine records no routing"):
        step(None, router_replay=True)


def test_what_cannot_be_replayed_is_refused(tiny: Path, experts: Path) -> None:
    with pytest.raises(ValidationError, match="needs engine"):
        PolicyConfig.model_validate({"learner": {"router_replay": True}})
    with pytest.raises(UserError, match="Qwen3ForCausalLM has no routers"):
        learner(tiny, router_replay=True)
    assert has_experts(str(experts)) and not has_experts(str(tiny))
