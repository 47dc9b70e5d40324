"""What an objective is given: the policy's tokens of one micro-batch, as tensors of shape [N]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch

MAX_LOG_RATIO = 20.0
"""Above it a ratio is taken as exp(20) = 5e8 and carries no gradient: a sum of squares of such
gradients still fits into float32."""

Loss: TypeAlias = tuple[torch.Tensor, dict[str, torch.Tensor]]
"""Per-token loss and per-token metrics, all of shape [N]; metrics carry no gradient."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """One entry per token that the policy generated; no sample is split over micro-batches.

    ``logprobs`` are the learner's now and carry a gradient. ``engine`` is what the token was
    sampled with; ``old`` is pi_old of the ratio: the same, or the learner's own before the step.
    ``reference`` is the frozen reference's, where a penalty needs it. ``sample`` is the index of
    the sample that the token belongs to.
    """

    logprobs: torch.Tensor
    engine: torch.Tensor
    old: torch.Tensor
    advantages: torch.Tensor
    sample: torch.Tensor
    reference: torch.Tensor | None = None

    @property
    def log_ratio(self) -> torch.Tensor:
        """``log(pi_theta / pi_old)`` of each token."""
        return self.logprobs - self.old

    def sums(self, values_N: torch.Tensor) -> torch.Tensor:
        """At every token the sum of ``values`` over its sample's tokens."""
        return sample_sums(values_N, self.sample)

    def means(self, values_N: torch.Tensor) -> torch.Tensor:
        """At every token the mean of ``values`` over its sample's tokens."""
        return self.sums(values_N) / self.sums(torch.ones_like(values_N))


class Objective(Protocol):
    """A policy objective: a frozen dataclass that is called with tokens."""

    def __call__(self, tokens: Tokens) -> Loss: ...


def sample_sums(values_N: torch.Tensor, sample_N: torch.Tensor) -> torch.Tensor:
    """At every token the sum of ``values`` over the tokens with the same ``sample``."""
    size = int(sample_N.max()) + 1 if len(sample_N) else 0
    return values_N.new_zeros(size).index_add(0, sample_N, values_N)[sample_N]


def ratio_of(log_ratio: torch.Tensor) -> torch.Tensor:
    """``exp``, finite for every finite input; constant above ``MAX_LOG_RATIO``."""
    return log_ratio.clamp(max=MAX_LOG_RATIO).exp()


def k3(log_ratio: torch.Tensor) -> torch.Tensor:
    """``r - 1 - log r``: unbiased for KL(p||q) with ``r = q/p`` and x from p, and not negative but
    for rounding."""
    return log_ratio.clamp(max=MAX_LOG_RATIO).expm1() - log_ratio
