"""Bradley-Terry on a critic's verdicts: the verdict for the right response, against the other one.

For one comparison ``m = log pi(right verdict) - log pi(wrong verdict)`` after the same prompt, each
summed over the verdict's tokens, and ``loss = -log sigma(beta m) - anchor * mean log pi(right)``:
Bradley and Terry (1952), with the right verdict's own likelihood beside it (arXiv 2404.19733), as
the difference alone lets both become unlikely, and a critic forgets how a verdict is written. Kimi
K2's report (section 3.2.2) publishes no loss for the critic: this one is our default.

The gradient is ``-beta sigma(-beta m) * (grad log pi(right) - grad log pi(wrong))`` and that of the
anchor. The factor is computed here, from the learner's log-probabilities before the step, and
travels as a weight per token (``Sample.preference``): for the first update of a step that is the
exact gradient, however samples are packed and shared among ranks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from palestra.rl.types import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts:
    """The token ids of one comparison: its prompt, and the replies that give either verdict."""

    prompt: tuple[int, ...]
    right: tuple[int, ...]
    wrong: tuple[int, ...]

    @property
    def sequences(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The prompt with either reply: the right one first."""
        return (*self.prompt, *self.right), (*self.prompt, *self.wrong)


def margins(asked: Sequence[Verdicts], logprobs: Sequence[Sequence[float]]) -> list[float]:
    """``m`` of each comparison; ``logprobs`` are those of all ``sequences``, in order."""
    pairs = zip(asked, logprobs[::2], logprobs[1::2], strict=True)
    return [
        math.fsum(right[len(one.prompt) :]) - math.fsum(wrong[len(one.prompt) :])
        for one, right, wrong in pairs
    ]


def loss(margin: float, beta: float) -> float:
    """``-log sigma(beta m)``, finite for every finite margin."""
    x = beta * margin
    return max(0.0, -x) + math.log1p(math.exp(-abs(x)))


def strength(margin: float, beta: float) -> float:
    """``-d loss / d m = beta sigma(-beta m)``."""
    x = beta * margin
    return beta * (math.exp(-x) if x >= 0 else 1.0) / (1.0 + math.exp(-abs(x)))


def preference_samples(
    asked: Sequence[Verdicts], margins: Sequence[float], *, beta: float, anchor: float, coef: float
) -> list[Sample]:
    """Two samples per comparison; together they have the gradient of ``coef`` times the mean loss.
    No other loss applies to any of their tokens."""
    made: list[Sample] = []
    for one, margin in zip(asked, margins, strict=True):
        weight, kept = strength(margin, beta), anchor / len(one.right)
        made += [
            _sample(one.prompt, one.right, coef * (weight + kept) / len(asked)),
            _sample(one.prompt, one.wrong, -coef * weight / len(asked)),
        ]
    return made


def preference_metrics(margins: Sequence[float], beta: float) -> dict[str, float]:
    """The mean loss, and the share of comparisons in which the right verdict is the likelier."""
    if not margins:
        return {}
    return {
        "critic/loss": fmean(loss(margin, beta) for margin in margins),
        "critic/margin": fmean(margins),
        "critic/likelier_frac": fmean(margin > 0 for margin in margins),
    }


def _sample(prompt: tuple[int, ...], reply: tuple[int, ...], weight: float) -> Sample:
    size = len(prompt) + len(reply)
    return Sample(
        token_ids=(*prompt, *reply),
        loss_mask=(False,) * size,
        logprobs=(0.0,) * size,
        advantages=(0.0,) * size,
        ptx=(0.0,) * size,
        preference=(0.0,) * len(prompt) + (weight,) * len(reply),
    )
