"""Every objective against its published formula, written out again, on a tabular softmax policy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palestra.rl.objectives.cispo import Cispo
from palestra.rl.objectives.gspo import Gspo
from palestra.rl.objectives.k25 import K25
from palestra.rl.objectives.kl import KlPenalty
from palestra.rl.objectives.mirror_descent import MirrorDescent
from palestra.rl.objectives.mismatch import Correction
from palestra.rl.objectives.policy_loss import PolicyLoss
from palestra.rl.objectives.ppo_clip import PpoClip
from palestra.rl.objectives.reinforce import Reinforce
from palestra.rl.objectives.tokens import Objective, Tokens

STATES, ACTIONS, TOKENS, SAMPLES = 4, 5, 24, 5
TAU = 0.3
seeds = st.integers(0, 2**31 - 1)

Row: TypeAlias = tuple[float, float, float, int, float]
"""log pi, ratio, advantage, tokens of the sample, log-ratio of the sample."""
Formula: TypeAlias = Callable[[Row], tuple[float, float]]
"""A token's loss, and what multiplies its grad log pi when all losses are summed."""


class Table:
    """Random logits, and tokens of several samples in any order; all float64."""

    def __init__(self, seed: int, *, spread: float = 1.0) -> None:
        rng = torch.Generator().manual_seed(seed)
        self.logits = torch.randn(STATES, ACTIONS, generator=rng, dtype=torch.float64)
        self.states = torch.randint(STATES, (TOKENS,), generator=rng)
        self.actions = torch.randint(ACTIONS, (TOKENS,), generator=rng)
        self.sample = torch.randint(SAMPLES, (TOKENS,), generator=rng)
        of_sample = torch.randn(SAMPLES, generator=rng, dtype=torch.float64)
        self.advantages = of_sample[self.sample]
        self.drift = torch.randn(TOKENS, generator=rng, dtype=torch.float64) * spread
        self.noise = torch.randn(TOKENS, generator=rng, dtype=torch.float64)

    def tokens(self, logits: torch.Tensor) -> Tokens:
        logprobs = torch.log_softmax(logits, -1)[self.states, self.actions]
        old = torch.log_softmax(self.logits, -1)[self.states, self.actions] - self.drift
        return Tokens(
            logprobs=logprobs,
            engine=old,
            old=old,
            reference=old - self.noise,
            advantages=self.advantages,
            sample=self.sample,
        )

    def rows(self) -> list[Row]:
        logprobs = self.tokens(self.logits).logprobs.tolist()
        drift, sample = self.drift.tolist(), self.sample.tolist()
        size = {i: sample.count(i) for i in sample}
        total = {i: sum(d for d, j in zip(drift, sample, strict=True) if i == j) for i in sample}
        return [
            (logprob, math.exp(d), advantage, size[i], total[i])
            for logprob, d, advantage, i in zip(
                logprobs, drift, self.advantages.tolist(), sample, strict=True
            )
        ]

    def closed_form(self, weights: list[float]) -> torch.Tensor:
        """``sum weight * grad log pi`` with ``grad log pi = onehot - pi``."""
        gradient = torch.zeros_like(self.logits)
        for weight, s, a in zip(weights, self.states.tolist(), self.actions.tolist(), strict=True):
            gradient[s] -= weight * torch.softmax(self.logits[s], -1)
            gradient[s, a] += weight
        return gradient


def gradient(loss: Callable[[torch.Tensor], torch.Tensor], at: torch.Tensor) -> torch.Tensor:
    where = at.clone().requires_grad_()
    (found,) = torch.autograd.grad(loss(where), where)
    return found


def clipped(ratio: float, advantage: float, low: float, high: float) -> tuple[float, float]:
    """PPO's surrogate for one ratio: a gain is cut off above, a loss is not."""
    gain = ratio > 1 + high if advantage > 0 else ratio < 1 - low
    held = 1 + high if advantage > 0 else 1 - low
    return (-held * advantage, 0.0) if gain else (-ratio * advantage, -ratio * advantage)


def ppo(row: Row) -> tuple[float, float]:
    _, ratio, advantage, _, _ = row
    return clipped(ratio, advantage, 0.2, 0.28)


def dual(row: Row) -> tuple[float, float]:
    _, ratio, advantage, _, _ = row
    if advantage < 0 and ratio > 3:
        return -3 * advantage, 0.0
    return clipped(ratio, advantage, 0.2, 0.28)


def reinforce(row: Row) -> tuple[float, float]:
    logprob, _, advantage, _, _ = row
    return -advantage * logprob, -advantage


def cispo(row: Row) -> tuple[float, float]:
    logprob, ratio, advantage, _, _ = row
    weight = min(max(ratio, 0.5), 2.0)
    return -weight * advantage * logprob, -weight * advantage


def gspo(row: Row) -> tuple[float, float]:
    _, _, advantage, size, log_ratio = row
    # The loss stands at each of the sample's tokens, each a size-th of the mean's gradient.
    return clipped(math.exp(log_ratio / size), advantage, 0.1, 0.2)


def regression(row: Row) -> tuple[float, float]:
    _, _, advantage, size, log_ratio = row
    gap = advantage - TAU * log_ratio
    return gap**2, -2 * TAU * gap * size


def k25(row: Row) -> tuple[float, float]:
    _, ratio, advantage, _, _ = row
    inside = 0.5 <= ratio <= 2.0
    loss = TAU * math.log(ratio) ** 2 - min(max(ratio, 0.5), 2.0) * advantage
    return loss, 2 * TAU * math.log(ratio) - inside * ratio * advantage


FORMULAS: list[tuple[Objective, Formula]] = [
    (K25(alpha=0.5, beta=2.0, tau=TAU), k25),
    (PpoClip(clip_ratio_low=0.2, clip_ratio_high=0.28), ppo),
    (PpoClip(clip_ratio_low=0.2, clip_ratio_high=0.28, clip_ratio_c=3.0), dual),
    (Reinforce(), reinforce),
    (Cispo(clip_ratio_low=0.5, clip_ratio_high=1.0), cispo),
    (Gspo(clip_ratio_low=0.1, clip_ratio_high=0.2), gspo),
    (MirrorDescent(tau=TAU), regression),
]
every = pytest.mark.parametrize(("objective", "formula"), FORMULAS)


@every
@given(seed=seeds)
@settings(max_examples=15)
def test_value_and_gradient_are_the_formula(
    objective: Objective, formula: Formula, seed: int
) -> None:
    table = Table(seed)
    values, weights = zip(*map(formula, table.rows()), strict=True)
    loss, metrics = objective(table.tokens(table.logits))
    torch.testing.assert_close(loss, torch.tensor(values, dtype=torch.float64))
    found = gradient(lambda logits: objective(table.tokens(logits))[0].sum(), table.logits)
    torch.testing.assert_close(found, table.closed_form(list(weights)), atol=1e-6, rtol=1e-6)
    assert all(len(m) == TOKENS and not m.requires_grad for m in metrics.values())


@every
@given(seed=seeds)
@settings(max_examples=10)
def test_on_policy_it_is_reinforce_with_the_advantage(
    objective: Objective, formula: Formula, seed: int
) -> None:
    table = Table(seed, spread=0.0)
    found = gradient(lambda logits: objective(table.tokens(logits))[0].sum(), table.logits)
    scale = [2 * TAU * size if formula is regression else 1.0 for _, _, _, size, _ in table.rows()]
    weights = [-s * a for s, a in zip(scale, table.advantages.tolist(), strict=True)]
    torch.testing.assert_close(found, table.closed_form(weights), atol=1e-6, rtol=1e-6)


@every
@given(seed=seeds)
@settings(max_examples=10)
def test_samples_do_not_see_each_other(objective: Objective, formula: Formula, seed: int) -> None:
    """What a micro-batch split relies on."""
    table = Table(seed)
    whole, _ = objective(table.tokens(table.logits))
    for index in set(table.sample.tolist()):
        own = table.sample == index
        tokens = table.tokens(table.logits)
        part = Tokens(
            **{name: getattr(tokens, name)[own] for name in Tokens.__slots__},
        )
        torch.testing.assert_close(objective(part)[0], whole[own])


numbers = st.floats(-1e6, 1e6, width=32)


@every
@given(data=st.lists(st.tuples(numbers, numbers, st.floats(-100, 100, width=32)), min_size=1))
@settings(max_examples=25)
def test_loss_and_gradient_are_finite_for_finite_input(
    objective: Objective, formula: Formula, data: list[tuple[float, float, float]]
) -> None:
    logprobs, old, advantages = (torch.tensor(x) for x in zip(*data, strict=True))
    sample = torch.arange(len(data)) % 2
    for correction in (None, Correction(name="icepop", level="sequence", low=0.5, high=2.0)):
        loss = PolicyLoss(
            objective=objective, correction=correction, kl=KlPenalty(coef=0.1, type="k3")
        )

        def total(where: torch.Tensor, loss: PolicyLoss = loss) -> torch.Tensor:
            tokens = Tokens(
                logprobs=where,
                engine=old.flip(0),
                old=old,
                advantages=advantages,
                sample=sample,
                reference=old,
            )
            value, metrics = loss(tokens)
            assert all(m.isfinite().all() for m in metrics.values())
            return value.sum()

        assert total(logprobs).isfinite()
        found = gradient(total, logprobs)
        assert found.isfinite().all()
        assert found.norm().isfinite()


@pytest.mark.parametrize(
    ("advantage", "ratio", "moves"),
    [(1, 1.3, False), (1, 0.5, True), (-1, 0.5, False), (-1, 1.3, True), (-1, 4.0, True)],
)
def test_ppo_cuts_off_gains_only(advantage: float, ratio: float, moves: bool) -> None:
    def loss(logprob: torch.Tensor, objective: Objective) -> torch.Tensor:
        old = torch.tensor([-1.0 - math.log(ratio)])
        advantages = torch.tensor([float(advantage)])
        sample = torch.zeros(1, dtype=torch.long)
        tokens = Tokens(logprobs=logprob, engine=old, old=old, advantages=advantages, sample=sample)
        return objective(tokens)[0].sum()

    at = torch.tensor([-1.0])
    plain, held = (
        PpoClip(clip_ratio_low=0.2, clip_ratio_high=0.2, clip_ratio_c=c) for c in (None, 3.0)
    )
    found = gradient(lambda where: loss(where, plain), at)
    assert found.item() == pytest.approx(-ratio * advantage if moves else 0.0, rel=1e-5)
    assert (gradient(lambda where: loss(where, held), at).item() != 0) == (moves and ratio < 3)


# K1.5 and K2: the same regression.


def sequence_logprobs(table: Table, logits: torch.Tensor) -> torch.Tensor:
    logprobs = torch.log_softmax(logits, -1)[table.states, table.actions]
    return torch.stack([logprobs[table.sample == i].sum() for i in range(SAMPLES)])


@given(seed=seeds)
@settings(max_examples=15)
def test_the_regression_is_minus_two_tau_times_equation_3_of_k15(seed: int) -> None:
    table = Table(seed)
    table.sample[:SAMPLES] = torch.arange(SAMPLES)  # none is empty
    rewards = torch.rand(SAMPLES, dtype=torch.float64)
    centred = rewards - rewards.mean()
    table.advantages = centred[table.sample]
    start = table.tokens(table.logits).old
    begun = torch.stack([start[table.sample == i].sum() for i in range(SAMPLES)])

    def equation_3(logits: torch.Tensor) -> torch.Tensor:
        sequences = sequence_logprobs(table, logits)
        return (sequences * centred - TAU / 2 * (sequences - begun).square()).mean()

    def ours(logits: torch.Tensor) -> torch.Tensor:
        tokens = table.tokens(logits)
        lengths = tokens.sums(torch.ones_like(tokens.old))
        loss, _ = MirrorDescent(tau=TAU)(tokens)
        return (loss / lengths / SAMPLES).sum()

    expected = -2 * TAU * gradient(equation_3, table.logits)
    torch.testing.assert_close(gradient(ours, table.logits), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("tau", [0.2, 1.0])
def test_with_log_z_for_a_baseline_the_minimiser_is_the_tilted_policy(tau: float) -> None:
    """One state; every action once, weighed by its probability: the expectation itself."""
    old = torch.log_softmax(torch.tensor([0.5, -1.0, 0.0, 1.5], dtype=torch.float64), -1)
    rewards = torch.tensor([1.0, 0.0, 0.3, 0.0], dtype=torch.float64)
    log_z = torch.logsumexp(old + rewards / tau, -1)
    tilted = (old + rewards / tau - log_z).exp()

    def surrogate(logits: torch.Tensor) -> torch.Tensor:
        tokens = Tokens(
            logprobs=torch.log_softmax(logits, -1),
            engine=old,
            old=old,
            advantages=rewards - tau * log_z,
            sample=torch.arange(4),
        )
        return (old.exp() * MirrorDescent(tau=tau)(tokens)[0]).sum()

    assert surrogate(tilted.log()).item() == pytest.approx(0.0, abs=1e-15)
    logits = old.clone()
    for _ in range(4000):
        logits = logits - 0.5 / tau**2 * gradient(surrogate, logits)
    torch.testing.assert_close(torch.softmax(logits, -1), tilted, atol=1e-6, rtol=1e-6)


# What stands around an objective.


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_kl_estimators_and_the_gradients_of_their_means(kind: str) -> None:
    rng = torch.Generator().manual_seed(3)
    logits, other = torch.randn(2, ACTIONS, generator=rng, dtype=torch.float64) * 0.5
    reference = torch.log_softmax(other, -1)
    policy = torch.softmax(logits, -1)

    def penalty(where: torch.Tensor) -> torch.Tensor:
        logprobs = torch.log_softmax(where, -1)
        tokens = Tokens(
            logprobs=logprobs,
            engine=logprobs.detach(),
            old=logprobs.detach(),
            advantages=torch.zeros(ACTIONS),
            sample=torch.arange(ACTIONS),
            reference=reference,
        )
        return (policy * KlPenalty(coef=0.7, type=kind)(tokens)).sum()

    def kl(where: torch.Tensor) -> torch.Tensor:
        logprobs = torch.log_softmax(where, -1)
        return 0.7 * (logprobs.exp() * (logprobs - reference)).sum()

    def reverse(where: torch.Tensor) -> torch.Tensor:
        return -0.7 * (reference.exp() * torch.log_softmax(where, -1)).sum()

    if kind != "k2":
        torch.testing.assert_close(penalty(logits), kl(logits))
    expected = {
        "k1": torch.zeros(ACTIONS, dtype=torch.float64),
        "k2": gradient(kl, logits),
        "k3": gradient(reverse, logits),
    }
    torch.testing.assert_close(gradient(penalty, logits), expected[kind])


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("name", ["tis", "mis", "icepop"])
@given(seed=seeds)
@settings(max_examples=15)
def test_corrections_weigh_truncate_and_mask(name: str, level: str, seed: int) -> None:
    table = Table(seed)
    tokens = table.tokens(table.logits)
    engine = tokens.old - table.noise * 0.7
    tokens = replace(tokens, engine=engine)
    weights = []
    for own, index in zip((table.noise * 0.7).tolist(), table.sample.tolist(), strict=True):
        members = (table.noise * 0.7)[table.sample == index].sum().item()
        ratio = math.exp(own if level == "token" else members)
        kept = {"tis": True, "mis": ratio <= 2.0, "icepop": 0.5 <= ratio <= 2.0}[name]
        weights.append(min(ratio, 2.0) if name == "tis" else ratio * kept)
    correction = Correction(name=name, level=level, low=0.5, high=2.0)
    found, outside = correction(tokens)
    torch.testing.assert_close(found, torch.tensor(weights, dtype=torch.float64))
    if name != "tis":
        assert outside.tolist() == [w == 0 for w in weights]
    loss = PolicyLoss(objective=Reinforce(), old_logprobs="learner", correction=correction)

    def total(logits: torch.Tensor) -> torch.Tensor:
        return loss(replace(table.tokens(logits), engine=engine))[0].sum()

    expected = [-w * a for w, a in zip(weights, table.advantages.tolist(), strict=True)]
    torch.testing.assert_close(gradient(total, table.logits), table.closed_form(expected))


def test_a_penalty_is_added_and_reported_without_its_weight() -> None:
    table = Table(1)
    tokens = table.tokens(table.logits)
    penalty = KlPenalty(coef=0.2, type="k2")
    loss, metrics = PolicyLoss(objective=Reinforce(), kl=penalty)(tokens)
    torch.testing.assert_close(loss, Reinforce()(tokens)[0] + penalty(tokens))
    torch.testing.assert_close(
        metrics["actor/kl_loss"], (tokens.logprobs - tokens.reference).square() / 2
    )
    with pytest.raises(ValueError, match="reference"):
        penalty(replace(tokens, reference=None))
