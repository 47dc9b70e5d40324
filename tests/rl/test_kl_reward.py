"""KL from the reference in the reward: closed forms, and a step that learns from it."""

from __future__ import annotations

import asyncio
import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from palestra.policies.fake import LOGPROB, RecordingTrainer
from palestra.rl.advantage import samples
from palestra.rl.config import KlConfig
from palestra.rl.kl_reward import Penalties, estimate, kl_metrics, kl_penalties, less_kl
from palestra.rl.objectives.kl import KlPenalty
from palestra.rl.objectives.reinforce import Reinforce
from palestra.rl.objectives.tokens import Tokens
from palestra.rl.presets import Rule
from palestra.rl.run import Run
from palestra.rl.step import rl_step
from palestra.rl.types import Group, Sample, Trajectory, Turn

Make = Callable[..., Trajectory]
LENGTH, ACTIONS, COEF = 3, 3, 0.7
EVERY = list(itertools.product(range(ACTIONS), repeat=LENGTH))


class Exact:
    """A tabular softmax policy and its reference: the next token depends on place and last one."""

    def __init__(self) -> None:
        rng = torch.Generator().manual_seed(5)
        shape = (LENGTH, ACTIONS, ACTIONS)
        self.logits = torch.randn(shape, generator=rng, dtype=torch.float64)
        self.reference = torch.randn(shape, generator=rng, dtype=torch.float64)
        self.rewards = torch.rand(len(EVERY), generator=rng, dtype=torch.float64)

    @staticmethod
    def logprobs(logits: torch.Tensor) -> torch.Tensor:
        """Of each token of every sequence, [A^T, T]."""
        tokens = torch.tensor(EVERY)
        last = torch.cat([torch.zeros(len(EVERY), 1, dtype=torch.long), tokens[:, :-1]], 1)
        return torch.log_softmax(logits, -1)[torch.arange(LENGTH), last, tokens]

    def penalised_return(self, logits: torch.Tensor) -> torch.Tensor:
        """``E[reward] - coef * KL(policy || reference)`` over whole sequences."""
        own = self.logprobs(logits).sum(1)
        kl = (own.exp() * (own - self.logprobs(self.reference).sum(1))).sum()
        return (own.exp() * self.rewards).sum() - COEF * kl

    def group(self, make: Make, turn: Turn) -> Group:
        """Every sequence once, as two turns."""

        def part(ids: tuple[int, ...], own: list[float]) -> Turn:
            return replace(turn, context_ids=(90, 91), token_ids=ids, logprobs=tuple(own))

        played = [
            make(
                f"{n:02}",
                reward=reward,
                turns=(part(ids[:1], own[:1]), part(ids[1:], own[1:])),
            )
            for n, (ids, own, reward) in enumerate(
                zip(EVERY, self.logprobs(self.logits).tolist(), self.rewards.tolist(), strict=True)
            )
        ]
        return Group(id="g", task_id="t", trajectories=tuple(played))


class Scores(RecordingTrainer):
    """Its reference is the tabular one."""

    def __init__(self, exact: Exact) -> None:
        super().__init__()
        self.exact = exact

    async def reference_logprobs(self, samples: Sequence[Sample]) -> list[list[float]]:
        table = dict(zip(EVERY, self.exact.logprobs(self.exact.reference).tolist(), strict=True))
        return [table[generated(sample)] for sample in samples]


def generated(sample: Sample) -> tuple[int, ...]:
    return tuple(itertools.compress(sample.token_ids, sample.loss_mask))


def config(kind: str | None = None) -> KlConfig:
    return KlConfig(coef=COEF, where="reward", type=kind)  # type: ignore[arg-type]


def charged(exact: Exact, group: Group, kind: str | None = None) -> tuple[Group, Penalties]:
    penalties = asyncio.run(kl_penalties([group], config(kind), Scores(exact)))
    (less,) = less_kl([group], penalties)
    return less, penalties


@pytest.mark.parametrize("kind", [None, "k1", "k3"])
def test_the_mean_reward_is_the_return_less_the_divergence(
    make_trajectory: Make, make_turn: Callable[..., Turn], kind: str | None
) -> None:
    exact = Exact()
    less, penalties = charged(exact, exact.group(make_trajectory, make_turn()), kind)
    weights = exact.logprobs(exact.logits).sum(1).exp()
    totals = torch.tensor([t.reward.total for t in less.trajectories if t.reward]).double()
    expected = exact.penalised_return(exact.logits).item()
    assert (weights * totals).sum().item() == pytest.approx(expected, abs=1e-6)
    first = less.trajectories[0]
    assert first.reward
    assert first.reward.shaping == {"kl": pytest.approx(-sum(penalties["00"]))}
    costs = [cost for own in penalties.values() for cost in own]
    metric = kl_metrics(penalties, config())["actor/reward_kl_penalty"]
    assert metric == pytest.approx(statistics.fmean(costs) / COEF)


def test_the_policy_gradient_is_that_of_the_return_less_the_divergence(
    make_trajectory: Make, make_turn: Callable[..., Turn]
) -> None:
    exact = Exact()
    less, penalties = charged(exact, exact.group(make_trajectory, make_turn()))
    (made,) = samples([less], Rule(adv_estimator="none", zero_variance_filter=False), penalties)
    advantages = torch.tensor(
        [list(itertools.compress(s.advantages, s.loss_mask)) for s in made], dtype=torch.float64
    )
    logits = exact.logits.clone().requires_grad_()
    now = exact.logprobs(logits)
    tokens = Tokens(
        logprobs=now.flatten(),
        engine=now.detach().flatten(),
        old=now.detach().flatten(),
        advantages=advantages.flatten(),
        sample=torch.arange(len(EVERY)).repeat_interleave(LENGTH),
    )
    weights = now.detach().sum(1).exp().repeat_interleave(LENGTH)
    (found,) = torch.autograd.grad((weights * Reinforce()(tokens)[0]).sum(), logits)
    wanted = exact.logits.clone().requires_grad_()
    (expected,) = torch.autograd.grad(-exact.penalised_return(wanted), wanted)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def by_hand(exact: Exact) -> list[list[float]]:
    """``r - beta * sum_{i >= t} KL_i`` of every sequence."""
    gap = (exact.logprobs(exact.logits) - exact.logprobs(exact.reference)).tolist()
    return [
        [reward - COEF * sum(own[t:]) for t in range(LENGTH)]
        for reward, own in zip(exact.rewards.tolist(), gap, strict=True)
    ]


def test_reinforce_plus_plus_whitens_returns_to_go(
    make_trajectory: Make, make_turn: Callable[..., Turn]
) -> None:
    exact = Exact()
    less, penalties = charged(exact, exact.group(make_trajectory, make_turn()))
    rule = Rule(adv_estimator="reinforce_plus_plus", zero_variance_filter=False)
    (made,) = samples([less], rule, penalties)
    returns = by_hand(exact)
    flat = [value for own in returns for value in own]
    mean, std = statistics.fmean(flat), statistics.pstdev(flat)
    for sample, own in zip(made, returns, strict=True):
        found = list(itertools.compress(sample.advantages, sample.loss_mask))
        assert found == pytest.approx([(value - mean) / std for value in own], abs=1e-5)


def test_estimators_that_compare_siblings_see_the_sum(
    make_trajectory: Make, make_turn: Callable[..., Turn]
) -> None:
    exact = Exact()
    less, penalties = charged(exact, exact.group(make_trajectory, make_turn()))
    (made,) = samples([less], Rule(), penalties)
    totals = [own[0] for own in by_hand(exact)]
    for sample, total in zip(made, totals, strict=True):
        found = list(itertools.compress(sample.advantages, sample.loss_mask))
        assert found == pytest.approx([total - statistics.fmean(totals)] * LENGTH, abs=1e-9)


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
@pytest.mark.parametrize("difference", [-30.0, -0.5, 0.0, 1.5])
def test_estimates_are_those_of_the_loss(kind: Any, difference: float) -> None:
    tokens = Tokens(
        logprobs=torch.tensor([difference], dtype=torch.float64),
        engine=torch.zeros(1),
        old=torch.zeros(1),
        advantages=torch.zeros(1),
        sample=torch.zeros(1, dtype=torch.long),
        reference=torch.zeros(1, dtype=torch.float64),
    )
    expected = KlPenalty(coef=1.0, type=kind)(tokens).item()
    assert math.isclose(estimate(difference, kind), expected, rel_tol=1e-12)


# In a step.


def step(run: Run) -> tuple[dict[str, float], RecordingTrainer]:
    assert isinstance(run.trainer, RecordingTrainer)
    return asyncio.run(rl_step(1, run)), run.trainer


def test_without_a_coefficient_nothing_is_scored_and_every_bit_stays(
    make_run: Callable[..., Run],
) -> None:
    _, expected = step(make_run())
    metrics, found = step(make_run(kl={"coef": 0.0, "where": "reward"}))
    assert found.batches == expected.batches and found.batches[0].samples
    assert found.scored == []
    assert not any("kl" in name for name in metrics)


def test_a_step_scores_what_it_learns_from_and_records_the_penalty(
    make_run: Callable[..., Run],
) -> None:
    run = make_run(kl={"coef": COEF, "where": "reward"}, mini_batches=2)
    metrics, trainer = step(run)
    assert len(trainer.scored) == 12, "uniform groups, too: their divergence teaches"
    learned = [sample for batch in trainer.batches for sample in batch.samples]
    assert sorted(map(generated, learned)) == sorted(map(generated, trainer.scored))
    gaps = [LOGPROB + token % 8 / 8 for sample in learned for token in generated(sample)]
    assert metrics["actor/reward_kl_penalty"] == pytest.approx(statistics.fmean(gaps))
    shaped = run.journal.shaped(1)
    assert metrics["shaping/kl/mean"] == pytest.approx(-COEF * sum(gaps) / 12)
    assert statistics.fmean(r.shaping["kl"] for r in shaped.values()) == pytest.approx(
        metrics["shaping/kl/mean"]
    )
    raw = [t.reward.total for t in run.journal.trajectories(1) if t.reward]
    assert metrics["reward/mean"] == statistics.fmean(raw), "the raw rewards stay"
    _, again = step(make_run(kl={"coef": COEF, "where": "reward"}, mini_batches=2))
    assert again.batches == trainer.batches, "learned again from the journal after a kill"
