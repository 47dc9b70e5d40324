"""Peers' published losses, written out as they compute them: on the padded matrix of a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palestra.rl.aggregation import sample_weights
from palestra.rl.config import RLConfig
from palestra.rl.objectives.registry import policy_loss
from palestra.rl.objectives.tokens import Tokens
from palestra.rl.presets import rule

STATES, ACTIONS, BATCH = 4, 5, 6
TAU = 0.3
seeds = st.integers(0, 2**31 - 1)


class Completions:
    """Of a tabular softmax policy: the matrices are [BATCH, longest], the advantages [BATCH, 1],
    all float64. Every completion has a token, the first one has ``longest``."""

    def __init__(self, seed: int, longest: int = 9) -> None:
        rng = torch.Generator().manual_seed(seed)
        shape = (BATCH, longest)
        self.logits = torch.randn(STATES, ACTIONS, generator=rng, dtype=torch.float64)
        self.states = torch.randint(STATES, shape, generator=rng)
        self.actions = torch.randint(ACTIONS, shape, generator=rng)
        self.lengths = torch.randint(1, longest + 1, (BATCH,), generator=rng)
        self.lengths[0] = longest
        self.mask = torch.arange(longest) < self.lengths[:, None]
        self.advantages = torch.randn(BATCH, 1, generator=rng, dtype=torch.float64)
        drift = torch.randn(shape, generator=rng, dtype=torch.float64)
        self.old = self.logprobs(self.logits) - drift

    def logprobs(self, logits: torch.Tensor) -> torch.Tensor:
        return torch.log_softmax(logits, -1)[self.states, self.actions]

    def ours(self, logits: torch.Tensor, **objective: Any) -> torch.Tensor:
        """What the learner makes of the batch: weighted losses, divided by the tokens."""
        config = RLConfig(objective=objective)
        mode = rule(config).loss_agg_mode
        (weights,) = sample_weights([self.lengths.tolist()], mode, scale_factor=1)
        sample = torch.arange(BATCH).repeat_interleave(self.lengths)
        loss, _ = policy_loss(config)(
            Tokens(
                logprobs=self.logprobs(logits)[self.mask],
                engine=self.old[self.mask],
                old=self.old[self.mask],
                advantages=self.advantages[sample, 0],
                sample=sample,
            )
        )
        weight = torch.tensor(weights, dtype=torch.float64)[sample]
        return (weight * loss).sum() / len(loss)


Peer: TypeAlias = Callable[[Completions, torch.Tensor], torch.Tensor]


def over_all_tokens(batch: Completions, loss: torch.Tensor) -> torch.Tensor:
    """TRL's ``dapo`` and ``cispo`` divide by the completion tokens of the whole batch."""
    return (loss * batch.mask).sum() / batch.mask.sum()


def trl_dapo(batch: Completions, logits: torch.Tensor, delta: float | None = None) -> torch.Tensor:
    ratio = (batch.logprobs(logits) - batch.old).exp()
    clipped = ratio.clamp(1 - 0.2, 1 + 0.28) * batch.advantages
    free = ratio.clamp(max=delta) * batch.advantages if delta else ratio * batch.advantages
    return over_all_tokens(batch, -torch.minimum(free, clipped))


def trl_dapo_with_delta(batch: Completions, logits: torch.Tensor) -> torch.Tensor:
    return trl_dapo(batch, logits, delta=2.5)


def trl_cispo(batch: Completions, logits: torch.Tensor) -> torch.Tensor:
    """``epsilon_high`` is the largest weight itself, ours what it may be above 1."""
    logprobs = batch.logprobs(logits)
    weight = (logprobs - batch.old).exp().clamp(max=2.0).detach()
    return over_all_tokens(batch, -weight * batch.advantages * logprobs)


def gradient(loss: Callable[[torch.Tensor], torch.Tensor], at: torch.Tensor) -> torch.Tensor:
    where = at.clone().requires_grad_()
    (found,) = torch.autograd.grad(loss(where), where)
    return found


@pytest.mark.parametrize(
    ("objective", "theirs"),
    [
        ({"name": "dapo"}, trl_dapo),
        ({"name": "dapo", "clip_ratio_c": 2.5}, trl_dapo_with_delta),
        ({"name": "cispo", "clip_ratio_high": 1.0}, trl_cispo),
    ],
)
@given(seed=seeds)
@settings(max_examples=10)
def test_trl(objective: dict[str, Any], theirs: Peer, seed: int) -> None:
    batch = Completions(seed)
    ours = batch.ours(batch.logits, **objective)
    torch.testing.assert_close(ours, theirs(batch, batch.logits), atol=1e-6, rtol=1e-6)
    found = gradient(lambda logits: batch.ours(logits, **objective), batch.logits)
    expected = gradient(lambda logits: theirs(batch, logits), batch.logits)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def dro(batch: Completions, logits: torch.Tensor) -> torch.Tensor:
    """verl's ``dro``, ROLL's ``kimi15``: ``-(A log pi - tau/2 (log ratio)^2)`` of each token, here
    summed over a completion; the mean over completions."""
    logprobs = batch.logprobs(logits)
    loss = TAU / 2 * (logprobs - batch.old).square() - batch.advantages * logprobs
    return (loss * batch.mask).sum() / BATCH


def cross_terms(batch: Completions, logits: torch.Tensor) -> torch.Tensor:
    """By how much the square of a completion's log-ratio is more than the sum of its tokens'."""
    log_ratio = (batch.logprobs(logits) - batch.old) * batch.mask
    return (log_ratio.sum(1).square() - log_ratio.square().sum(1)).sum() / BATCH


@pytest.mark.parametrize("name", ["k15", "k2"])
@pytest.mark.parametrize("longest", [1, 9])
@given(seed=seeds)
@settings(max_examples=5)
def test_verl_and_roll_square_each_token_where_kimi_squares_the_sequence(
    name: str, longest: int, seed: int
) -> None:
    batch = Completions(seed, longest)
    found = gradient(lambda logits: batch.ours(logits, name=name, tau=TAU), batch.logits)
    theirs = 2 * TAU * gradient(lambda logits: dro(batch, logits), batch.logits)
    crossed = TAU**2 * gradient(lambda logits: cross_terms(batch, logits), batch.logits)
    torch.testing.assert_close(found, theirs + crossed, atol=1e-6, rtol=1e-6)
    assert (crossed.abs().max() > 1e-3) == (longest > 1), "only single tokens make them agree"
