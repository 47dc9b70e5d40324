"""K2.5's objective against the closed form of its gradient on a tabular softmax policy."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palestra.rl.objectives.k25 import K25
from palestra.rl.objectives.tokens import Tokens

STATES, ACTIONS, TOKENS = 4, 5, 24
seeds = st.integers(0, 2**31 - 1)


def tokens(logprobs: torch.Tensor, old: torch.Tensor, advantages: torch.Tensor) -> Tokens:
    """Of one sample."""
    return Tokens(
        logprobs=logprobs,
        engine=old,
        old=old,
        advantages=advantages,
        sample=torch.zeros(len(logprobs), dtype=torch.long),
    )


class Table:
    """Random logits, tokens with random old log-probabilities and advantages; all float64."""

    def __init__(self, seed: int, *, spread: float = 1.0) -> None:
        rng = torch.Generator().manual_seed(seed)
        self.logits = torch.randn(STATES, ACTIONS, generator=rng, dtype=torch.float64)
        self.states = torch.randint(STATES, (TOKENS,), generator=rng)
        self.actions = torch.randint(ACTIONS, (TOKENS,), generator=rng)
        self.advantages = torch.randn(TOKENS, generator=rng, dtype=torch.float64)
        drift = torch.randn(TOKENS, generator=rng, dtype=torch.float64) * spread
        self.old = self.chosen(self.logits) - drift
        self.ratios = drift.exp()

    def chosen(self, logits: torch.Tensor) -> torch.Tensor:
        return torch.log_softmax(logits, -1)[self.states, self.actions]

    def gradient(self, objective: K25) -> torch.Tensor:
        """Autograd's gradient of the mean loss with respect to the logits."""
        logits = self.logits.clone().requires_grad_()
        loss, _ = objective(tokens(self.chosen(logits), self.old, self.advantages))
        (loss.sum() / TOKENS).backward()
        assert logits.grad is not None
        return logits.grad

    def closed_form(self, weights: list[float]) -> torch.Tensor:
        """``-(1/N) sum weight * grad log pi`` with ``grad log pi = onehot - pi``."""
        gradient = torch.zeros_like(self.logits)
        for weight, s, a in zip(weights, self.states.tolist(), self.actions.tolist(), strict=True):
            gradient[s] += weight * torch.softmax(self.logits[s], -1) / TOKENS
            gradient[s, a] -= weight / TOKENS
        return gradient


def inside(ratio: float, objective: K25) -> bool:
    return objective.alpha <= ratio <= objective.beta


@given(
    seed=seeds,
    alpha=st.floats(0.05, 0.95),
    beta=st.floats(1.05, 5.0),
    tau=st.sampled_from([0.0, 0.01, 0.5]),
    mask_reg=st.booleans(),
)
@settings(max_examples=60)
def test_value_and_gradient_are_the_closed_form(
    seed: int, alpha: float, beta: float, tau: float, mask_reg: bool
) -> None:
    table = Table(seed)
    objective = K25(alpha=alpha, beta=beta, tau=tau, mask_reg=mask_reg)
    values, weights = [], []
    for ratio, advantage in zip(table.ratios.tolist(), table.advantages.tolist(), strict=True):
        kept = inside(ratio, objective)
        pull = 0.0 if mask_reg and not kept else tau
        clipped = min(max(ratio, alpha), beta)
        values.append(-(clipped * advantage - pull * math.log(ratio) ** 2))
        weights.append(kept * ratio * advantage - 2 * pull * math.log(ratio))
    loss, metrics = objective(tokens(table.chosen(table.logits), table.old, table.advantages))
    torch.testing.assert_close(loss, torch.tensor(values, dtype=torch.float64))
    torch.testing.assert_close(
        table.gradient(objective), table.closed_form(weights), atol=1e-6, rtol=1e-6
    )
    clipped_share = sum(not inside(r, objective) for r in table.ratios.tolist()) / TOKENS
    assert metrics["actor/pg_clipfrac"].mean().item() == pytest.approx(clipped_share)


@pytest.mark.parametrize("advantage", [1.0, -1.0])
@pytest.mark.parametrize("log_ratio", [math.log(0.4), math.log(2.5)])
def test_outside_there_is_no_policy_gradient_for_either_sign(
    advantage: float, log_ratio: float
) -> None:
    logprob = torch.tensor([-1.0], dtype=torch.float64, requires_grad=True)
    objective = K25(alpha=0.5, beta=2.0, tau=0.0)
    loss, _ = objective(tokens(logprob, logprob.detach() - log_ratio, torch.tensor([advantage])))
    loss.sum().backward()
    assert logprob.grad is not None and logprob.grad.item() == 0.0


@pytest.mark.parametrize("ratio", [0.4, 2.5])
def test_mask_reg_switches_the_pull_back_off_outside_only(ratio: float) -> None:
    def pull(at: float, mask_reg: bool) -> float:
        logprob = torch.tensor([-1.0], dtype=torch.float64, requires_grad=True)
        objective = K25(alpha=0.5, beta=2.0, tau=0.1, mask_reg=mask_reg)
        loss, _ = objective(tokens(logprob, logprob.detach() - math.log(at), torch.zeros(1)))
        loss.sum().backward()
        assert logprob.grad is not None
        return logprob.grad.item()

    assert pull(ratio, mask_reg=False) == pytest.approx(0.2 * math.log(ratio))
    assert pull(ratio, mask_reg=True) == 0.0
    assert (
        pull(1.5, mask_reg=True) == pull(1.5, mask_reg=False) == pytest.approx(0.2 * math.log(1.5))
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("advantage", [1.5, -1.5])
@pytest.mark.parametrize("log_ratio", [-200.0, -89.0, -59.0, 59.0, 61.0, 89.0, 200.0, 1e6])
def test_log_ratios_beyond_what_exp_can_hold(
    log_ratio: float, advantage: float, dtype: torch.dtype
) -> None:
    logprob = torch.tensor([log_ratio], dtype=dtype, requires_grad=True)
    advantages = torch.tensor([advantage], dtype=dtype)
    loss, metrics = K25(alpha=0.5, beta=2.0, tau=0.01)(tokens(logprob, torch.zeros(1), advantages))
    loss.sum().backward()
    clipped = 2.0 if log_ratio > 0 else 0.5
    assert loss.item() == pytest.approx(0.01 * log_ratio**2 - clipped * advantage, rel=1e-5)
    assert logprob.grad is not None
    assert logprob.grad.item() == pytest.approx(2 * 0.01 * log_ratio, rel=1e-5)
    assert metrics["actor/pg_clipfrac"].item() == 1.0
    k3 = metrics["actor/ppo_kl"].item()
    assert 0 < k3 * 1e6 < torch.finfo(dtype).max
    if log_ratio < 60:
        assert k3 == pytest.approx(math.exp(log_ratio) - 1 - log_ratio, rel=1e-5)


def test_mask_reg_is_finite_there_too() -> None:
    logprob = torch.tensor([200.0, -200.0], requires_grad=True)
    loss, _ = K25(alpha=0.5, beta=2.0, tau=0.01, mask_reg=True)(
        tokens(logprob, torch.zeros(2), torch.tensor([1.0, 1.0]))
    )
    loss.sum().backward()
    assert loss.tolist() == [-2.0, -0.5]
    assert logprob.grad is not None and logprob.grad.tolist() == [0.0, 0.0]


@given(seed=seeds)
@settings(max_examples=30)
def test_the_bound_changes_no_bit_of_ordinary_ratios(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    log_ratio = torch.randn(64, generator=rng) * 15
    advantages = torch.randn(64, generator=rng)
    logprob = log_ratio.clone().requires_grad_()
    objective = K25(alpha=0.5, beta=2.0, tau=0.01)
    loss, metrics = objective(tokens(logprob, torch.zeros(64), advantages))
    loss.sum().backward()

    plain = log_ratio.clone().requires_grad_()
    ratio = plain.exp()
    expected = 0.01 * plain.square() - ratio.clamp(0.5, 2.0) * advantages
    expected.sum().backward()
    assert torch.equal(loss, expected)
    assert logprob.grad is not None and plain.grad is not None
    assert torch.equal(logprob.grad, plain.grad)
    kept = log_ratio <= 60
    assert torch.equal(metrics["actor/ppo_kl"][kept], (ratio - 1 - plain)[kept].detach())


@given(seed=seeds, tau=st.sampled_from([0.0, 0.3]))
@settings(max_examples=20)
def test_on_policy_it_is_reinforce(seed: int, tau: float) -> None:
    table = Table(seed, spread=0.0)
    objective = K25(alpha=0.5, beta=2.0, tau=tau)
    reinforce = table.closed_form(table.advantages.tolist())
    torch.testing.assert_close(table.gradient(objective), reinforce, atol=1e-6, rtol=1e-6)


def test_metrics_carry_no_gradient() -> None:
    logprob = torch.tensor([-1.0], requires_grad=True)
    _, metrics = K25(alpha=0.5, beta=2.0, tau=0.1)(tokens(logprob, torch.zeros(1), torch.ones(1)))
    assert not any(value.requires_grad for value in metrics.values())
    assert metrics["actor/ppo_kl"].item() == pytest.approx(math.exp(-1) - 1 + 1)
