"""Loss components of a micro-batch, without a model: any tensor may stand for log-probabilities."""

from __future__ import annotations

import math
import random
from typing import get_args

import pytest
import torch

from palestra.policies.components import (
    Counts,
    Scored,
    add,
    means,
    mismatch,
    over_updates,
    policy_loss,
    ptx_loss,
    recorded_mismatch,
)
from palestra.policies.packing import MicroBatch, micro_batches
from palestra.rl.objectives.cispo import Cispo
from palestra.rl.objectives.config import CorrectionName, Level
from palestra.rl.objectives.gspo import Gspo
from palestra.rl.objectives.k25 import K25, MAX_LOG_RATIO
from palestra.rl.objectives.kl import KlPenalty
from palestra.rl.objectives.mirror_descent import MirrorDescent
from palestra.rl.objectives.mismatch import Correction
from palestra.rl.objectives.policy_loss import PolicyLoss
from palestra.rl.objectives.ppo_clip import PpoClip
from palestra.rl.objectives.registry import OURS
from palestra.rl.objectives.reinforce import Reinforce
from palestra.rl.types import Sample

ALPHA, BETA, TAU_ = 0.5, 2.0, 0.05
LOSS = PolicyLoss(objective=K25(alpha=ALPHA, beta=BETA, tau=TAU_))
LOSSES = [
    PolicyLoss(objective=objective, kl=KlPenalty(coef=0.1, type="k3"))
    for objective in (
        LOSS.objective,
        MirrorDescent(tau=0.3),
        PpoClip(clip_ratio_low=0.2, clip_ratio_high=0.28),
        PpoClip(clip_ratio_low=0.2, clip_ratio_high=0.28, clip_ratio_c=3.0),
        Reinforce(),
        Gspo(clip_ratio_low=0.1, clip_ratio_high=0.2),
        Cispo(clip_ratio_low=0.5, clip_ratio_high=1.0),
    )
] + [
    PolicyLoss(
        objective=LOSS.objective,
        old_logprobs="learner",
        correction=Correction(name=name, level=level, low=0.1, high=10.0),
    )
    for name in get_args(CorrectionName)
    for level in get_args(Level)
]
losses = pytest.mark.parametrize("loss", LOSSES)


def samples(count: int = 7, weight: float = 1.0) -> list[Sample]:
    rng = random.Random(3)
    made = []
    for _ in range(count):
        size = rng.randrange(4, 20)
        mask = [t > 1 and rng.random() < 0.6 for t in range(size)]
        advantage = rng.uniform(-1, 1)
        made.append(
            Sample(
                token_ids=tuple(rng.randrange(50) for _ in range(size)),
                loss_mask=tuple(mask),
                logprobs=tuple(rng.uniform(-3, 0) if m else 0.0 for m in mask),
                advantages=tuple(advantage if m else 0.0 for m in mask),
                ptx=tuple(float(t > 0 and not m) for t, m in enumerate(mask)),
                weight=weight,
            )
        )
    return made


def packed(made: list[Sample], row: int = 512, size: int = 512, ranks: int = 1) -> list[MicroBatch]:
    """Of all ranks."""
    return [
        batch
        for rank in range(ranks)
        for batch in micro_batches(
            made, row_tokens=row, micro_batch_tokens=size, rank=rank, ranks=ranks
        )
    ]


def logprobs_of(micro: MicroBatch) -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    return (-3 * torch.rand(len(micro.target), generator=rng)).requires_grad_()


def test_the_default_is_bit_for_bit_the_mean_of_eq_1_over_generated_tokens() -> None:
    (micro,) = packed(samples())
    now = logprobs_of(micro)
    total, metrics = policy_loss(LOSS, Scored(micro=micro), now, first=True)
    tokens = int(micro.policy.sum())
    (found,) = torch.autograd.grad(total / tokens, now)

    again = now.detach().clone().requires_grad_()
    log_ratio = again[micro.policy] - micro.logprobs[micro.policy]
    ratio = log_ratio.clamp(max=MAX_LOG_RATIO).exp()
    clipped = ratio.clamp(ALPHA, BETA) * micro.advantages[micro.policy]
    plain = TAU_ * log_ratio.square() - clipped
    (expected,) = torch.autograd.grad(plain.sum() / tokens, again)
    assert torch.equal(total, plain.sum())
    assert torch.equal(found, expected)
    assert metrics["actor/pg_loss"] == plain.sum().item()


def test_all_our_objectives_are_tried() -> None:
    assert {type(loss.objective) for loss in LOSSES} == set(OURS.values())


@losses
def test_masked_tokens_have_exactly_no_gradient_and_weights_scale_it(loss: PolicyLoss) -> None:
    found = []
    for weight in (1.0, 2.0):
        (micro,) = packed(samples(weight=weight))
        now = logprobs_of(micro)
        scored = Scored(micro=micro, reference=now.detach() + 0.1)
        total, _ = policy_loss(loss, scored, now, first=True)
        (gradient,) = torch.autograd.grad(total, now)
        assert not gradient[~micro.policy].any()
        assert gradient[micro.policy].any()
        elsewhere = torch.where(micro.policy, now, now - 5)
        assert torch.equal(policy_loss(loss, scored, elsewhere, first=True)[0], total)
        found.append(gradient)
    torch.testing.assert_close(2 * found[0], found[1])


def test_whose_log_probabilities_are_the_old_ones() -> None:
    (micro,) = packed(samples())
    now = logprobs_of(micro)
    own = now.detach() - 0.7
    seen = []

    class Spy(PolicyLoss):
        def __call__(self, tokens):  # type: ignore[no-untyped-def]
            seen.append(tokens)
            return super().__call__(tokens)

    for old in ("engine", "learner"):
        spy = Spy(objective=Reinforce(), old_logprobs=old)
        policy_loss(spy, Scored(micro=micro), now, first=True)
        policy_loss(spy, Scored(micro=micro, own=own), now, first=False)
    chosen = micro.policy
    engine = micro.logprobs[chosen]
    expected = [engine, engine, now.detach()[chosen], own[chosen]]
    assert all(torch.equal(t.old, old) for t, old in zip(seen, expected, strict=True))
    assert all(torch.equal(t.engine, engine) for t in seen)
    assert not any(t.old.requires_grad for t in seen)


def test_mismatch_is_measured_before_the_first_update_only() -> None:
    (micro,) = packed(samples())
    now = logprobs_of(micro)
    own = now.detach() + 0.2
    _, first = policy_loss(LOSS, Scored(micro=micro), now, first=True)
    _, later = policy_loss(LOSS, Scored(micro=micro), now, first=False)
    _, scored = policy_loss(LOSS, Scored(micro=micro, own=own), now, first=False)
    assert not any("mismatch" in name for name in later)
    gap = (now.detach() - micro.logprobs)[micro.policy]
    assert first["mismatch/kl"] == pytest.approx(float((gap.exp() - 1 - gap).sum()), rel=1e-5)
    gap = gap + 0.2
    assert scored["mismatch/kl"] == pytest.approx(float((gap.exp() - 1 - gap).sum()), rel=1e-5)
    twice = recorded_mismatch([Scored(micro=micro, own=own)] * 2)
    assert twice["mismatch/kl"] == pytest.approx(2 * scored["mismatch/kl"])
    assert twice["max:mismatch/seq_ratio_max"] == scored["max:mismatch/seq_ratio_max"]


def test_mismatch_by_hand() -> None:
    engine = torch.tensor([-1.0, -1.0, -2.0])
    own = torch.tensor([-1.5, -1.5, -1.0])
    found = means(mismatch(engine, own, torch.tensor([4, 4, 0])), Counts(policy=3, ptx=0))
    kl = (2 * (math.exp(-0.5) - 0.5) + math.exp(1) - 2) / 3
    assert found == pytest.approx(
        {
            "mismatch/kl": kl,
            "mismatch/logprob_abs_diff": 2 / 3,
            "mismatch/logprob_abs_diff_max": 1.0,
            "mismatch/seq_ratio_max": math.e,
        }
    )
    nothing = mismatch(engine[:0], own[:0], torch.tensor([], dtype=torch.long))
    assert set(nothing.values()) == {0.0}


@losses
@pytest.mark.parametrize(("row", "size", "ranks"), [(16, 16, 1), (36, 36, 1), (16, 64, 2)])
def test_sums_and_gradients_do_not_depend_on_split_padding_and_ranks(
    loss: PolicyLoss, row: int, size: int, ranks: int
) -> None:
    def all_of(micros: list[MicroBatch]) -> tuple[dict[str, float], torch.Tensor]:
        """Sums, and the gradients of all tokens by sample."""
        sums: dict[str, float] = {}
        gradients = []
        for micro in micros:
            # A value per token that does not depend on where it stands.
            now = (-micro.target / 50 - micro.sample / 9).requires_grad_()
            scored = Scored(micro=micro, reference=0.9 * now.detach())
            total, metrics = policy_loss(loss, scored, now, first=True)
            nll = ptx_loss(micro, now)
            add(sums, {**metrics, "loss": total.item(), "nll": nll.item()})
            gradients += torch.autograd.grad(total + nll, now)
        order = torch.cat([micro.sample for micro in micros]).argsort(stable=True)
        return sums, torch.cat(gradients)[order]

    parts, whole = packed(samples(), row, size, ranks), packed(samples())
    assert len(parts) > len(whole) == 1
    (sums, gradients), (expected, expected_gradients) = all_of(parts), all_of(whole)
    assert sums == pytest.approx(expected, rel=1e-5, abs=1e-5)
    torch.testing.assert_close(gradients, expected_gradients)


def test_the_report_of_several_updates() -> None:
    reports = [
        {"a": 1.0, "x_max": 5.0, "once": 3.0, "actor/max_logit": 1.0},
        {"a": 2.0, "x_max": 4.0, "actor/max_logit": 7.0},
    ]
    largest = {"x_max": 5.0, "actor/max_logit": 7.0}
    assert over_updates(reports) == {"a": 1.5, "once": 3.0} | largest
    assert over_updates(reports[:1]) == reports[0]
