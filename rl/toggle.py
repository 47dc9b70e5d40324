"""Toggle (K2.5 report section 4.4.2, Eq. 2): reward short answers in every other phase only.

In limited phases an episode longer than its problem's budget earns nothing, where the policy
already solves the problem well enough; in the phases between, length is free, so that the policy
does not unlearn to use more tokens where they help.

    r~(x, y_i) = r(x, y_i) * 1{ mean accuracy < lambda  or  |y_i| <= budget(x) }   limited phase
               = r(x, y_i)                                                        free phase

Readings that the report leaves open, and ours: an episode is correct (r = 1) when every hidden
check passed, whatever else its reward says; the accuracy is that of the raw rewards; ``|y|`` counts
generated tokens over all turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from palestra.rl.types import Trajectory


def phase_of(step: int, period: int) -> int:
    """0 (limited) or 1 (free): ``floor(t / m) mod 2`` with ``t = step - 1``, steps from 1."""
    return (step - 1) // period % 2


def percentile(values: Sequence[float], rho: float) -> float:
    """The ``rho``-th percentile, ``rho`` in [0, 100], with a straight line between neighbours: the
    value at place ``(n - 1) * rho / 100`` of the sorted values, as numpy's default does.

    Example: ``percentile([10, 20], 50) == 15``
    """
    ordered = sorted(values)
    place = (len(ordered) - 1) * rho / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def estimated_budget(lengths: Sequence[int], rho: float, limit: int) -> float:
    """Generated tokens that a problem is worth: the percentile of the lengths of its correct
    episodes, or ``limit``, the most that an episode may generate, when none was correct."""
    return percentile(lengths, rho) if lengths else float(limit)


def correct_lengths(played: Sequence[Trajectory]) -> list[int]:
    """Generated tokens of the correct episodes."""
    return [t.generated for t in played if t.solved]


def limited(
    played: Sequence[Trajectory], rewards: Sequence[float], budget: float, min_accuracy: float
) -> list[float]:
    """``r~`` of siblings in a limited phase: those longer than ``budget`` earn nothing, when the
    share of correct ones is at least ``min_accuracy``."""
    if not played or fmean(t.solved for t in played) < min_accuracy:
        return list(rewards)
    return [
        0.0 if t.generated > budget else reward for t, reward in zip(played, rewards, strict=True)
    ]
