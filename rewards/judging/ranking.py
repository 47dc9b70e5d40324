"""Comparisons turned into one number for each response.

The Kimi K2 report ranks by pairwise comparisons (section 3.2.2) and publishes neither how both
orders are combined nor how a rank becomes a reward. Both rules here are our default.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from palestra.rewards.judging.questions import FIRST, SECOND

WIN, TIE, LOSS = 1.0, 0.5, 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What the ``left`` response, by index, has won against the ``right`` one.

    ``choices`` are the judge's, first with ``left`` shown first, then with ``right`` shown first;
    None when the pair was decided without asking.

    Example: ``Comparison(left=0, right=2, points=WIN, choices=(FIRST, SECOND))``
    """

    left: int
    right: int
    points: float
    choices: tuple[int, int] | None = None


def points(left_first: int, right_first: int) -> float:
    """What the left response wins: a judge who contradicts himself when the order is turned round
    has seen a tie."""
    if (left_first, right_first) == (FIRST, SECOND):
        return WIN
    if (left_first, right_first) == (SECOND, FIRST):
        return LOSS
    return TIE


def scores(size: int, comparisons: Iterable[Comparison]) -> list[float]:
    """Share of its comparisons that each response won, in [0, 1], a tie counting half.

    Where everyone met everyone this is ``1/(K-1) * sum over others of (win + tie/2)``, whose mean
    is 1/2. Everyone must have been compared.
    """
    won: list[list[float]] = [[] for _ in range(size)]
    for comparison in comparisons:
        won[comparison.left].append(comparison.points)
        won[comparison.right].append(1.0 - comparison.points)
    return [sum(own) / len(own) for own in won]
