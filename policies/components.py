"""Loss components of one micro-batch: each a sum over tokens, with metrics that are sums, too.

Every component has weights and a divisor of its own, so the strength of one does not depend on how
many tokens another rides along with. Which algorithm the policy loss comes from is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from palestra.policies.packing import MicroBatch
from palestra.rl.objectives.config import OldLogprobs, OnMismatch
from palestra.rl.objectives.tokens import Loss, Tokens, k3, ratio_of, sample_sums

MAX = "max:"
"""Prefix of metrics of which the largest counts, not the sum."""


class PolicyLoss(Protocol):
    """``rl.objectives.policy_loss.PolicyLoss``, or what stands in for it."""

    @property
    def old_logprobs(self) -> OldLogprobs: ...
    @property
    def kl(self) -> object | None: ...
    @property
    def kl_in_reward(self) -> bool: ...
    @property
    def reset_optimizer(self) -> bool: ...
    @property
    def mismatch_limit(self) -> float | None: ...
    @property
    def on_mismatch(self) -> OnMismatch: ...
    def __call__(self, tokens: Tokens) -> Loss: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A micro-batch and the log-probabilities of its tokens before the first update, [N] each:
    the learner's own and the reference's, where somebody needs them."""

    micro: MicroBatch
    own: torch.Tensor | None = None
    reference: torch.Tensor | None = None

    def to(self, device: torch.device) -> Scored:
        """The same on another device."""
        return Scored(
            micro=self.micro.to(device),
            own=None if self.own is None else self.own.to(device),
            reference=None if self.reference is None else self.reference.to(device),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Over a whole update: generated tokens and the weight of its supervised tokens, which are
    divisors, and tokens with a preference, whose weights are final."""

    policy: int
    ptx: float
    preference: int = 0

    @property
    def nothing(self) -> bool:
        """There is no token to learn from."""
        return not (self.policy or self.ptx or self.preference)


def policy_loss(
    loss: PolicyLoss, scored: Scored, logprobs: torch.Tensor, *, first: bool
) -> tuple[torch.Tensor, dict[str, float]]:
    """Weighted sum of the policy loss over the tokens of ``scored`` that the policy generated.

    ``first`` says that nothing was learned since the tokens were sampled: ``logprobs`` are then the
    learner's own before the step.
    """
    micro, chosen = scored.micro, scored.micro.policy
    now, engine = logprobs[chosen], micro.logprobs[chosen]
    own = now.detach() if scored.own is None else scored.own[chosen]
    tokens = Tokens(
        logprobs=now,
        engine=engine,
        old=engine if loss.old_logprobs == "engine" else own,
        advantages=micro.advantages[chosen],
        sample=micro.sample[chosen],
        reference=None if scored.reference is None else scored.reference[chosen],
    )
    per_token, extra = loss(tokens)
    weighted = per_token * micro.weight[chosen]
    metrics = {name: float(value.sum()) for name, value in extra.items()}
    metrics["actor/pg_loss"] = float(weighted.detach().sum())
    if first or scored.own is not None:
        metrics |= mismatch(engine, own, tokens.sample)
    return weighted.sum(), metrics


def ptx_loss(micro: MicroBatch, logprobs: torch.Tensor) -> torch.Tensor:
    """Weighted negative log-likelihood of the supervised tokens, summed."""
    return -(micro.ptx * logprobs).sum()


def preference_loss(micro: MicroBatch, logprobs: torch.Tensor) -> torch.Tensor:
    """What a preference loss looks like from the weights that its weights were computed with:
    linear in the log-probabilities, with the same gradient (``rl.critic.preference``)."""
    return -(micro.preference * logprobs).sum()


@torch.no_grad()
def mismatch(engine: torch.Tensor, own: torch.Tensor, sample: torch.Tensor) -> dict[str, float]:
    """How far the engine's recorded log-probabilities are from the learner's ``own`` under the same
    weights: KL(engine || learner) (k3), differences per token, ratio per sample either way."""
    gap = own - engine
    ratio = ratio_of(sample_sums(gap, sample).abs())
    return {
        "mismatch/kl": float(k3(gap).sum()),
        "mismatch/logprob_abs_diff": float(gap.abs().sum()),
        f"{MAX}mismatch/logprob_abs_diff_max": float(gap.abs().max()) if len(gap) else 0.0,
        f"{MAX}mismatch/seq_ratio_max": float(ratio.max()) if len(gap) else 0.0,
    }


def recorded_mismatch(scored: Sequence[Scored]) -> dict[str, float]:
    """The same, summed over micro-batches that were scored beforehand."""
    sums: dict[str, float] = {}
    for one in scored:
        if one.own is not None:
            micro, chosen = one.micro, one.micro.policy
            add(sums, mismatch(micro.logprobs[chosen], one.own[chosen], micro.sample[chosen]))
    return sums


def add(sums: dict[str, float], metrics: Mapping[str, float]) -> None:
    """Add the metrics of a micro-batch to those of the update."""
    for name, value in metrics.items():
        seen = sums.get(name, 0.0)
        sums[name] = max(seen, value) if name.startswith(MAX) else seen + value


def means(sums: Mapping[str, float], counts: Counts) -> dict[str, float]:
    """Sums over the tokens of an update as means over them."""
    report: dict[str, float] = {}
    for name, value in sums.items():
        if name.startswith(MAX):
            report[name.removeprefix(MAX)] = value
        else:
            report[name] = value / (counts.ptx if name.startswith("ptx/") else counts.policy)
    return report


def over_updates(reports: list[dict[str, float]]) -> dict[str, float]:
    """One report of a step's updates: means, or the largest of what is a maximum by its name."""
    names = dict.fromkeys(name for report in reports for name in report)
    found = {name: [report[name] for report in reports if name in report] for name in names}
    return {
        name: max(values) if _is_maximum(name) else sum(values) / len(values)
        for name, values in found.items()
    }


def _is_maximum(name: str) -> bool:
    return name.endswith("_max") or name.startswith("actor/max_")
