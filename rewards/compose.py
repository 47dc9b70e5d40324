"""How the parts of a reward become one number.

A rule is given the value of every part that was said, in order, and the weight of each; parts that
abstained are missing. It returns None when nothing can be said: then there is no reward.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TypeAlias

Rule: TypeAlias = Callable[[Mapping[str, float], Mapping[str, float]], float | None]
"""(values by name, weights by name) -> the total."""

FULL = 1.0
"""A part below this fell short."""


def weighted(values: Mapping[str, float], weights: Mapping[str, float]) -> float | None:
    """The sum of the weighted parts."""
    if not values:
        return None
    return sum(value * weights[name] for name, value in values.items())


def minimum(values: Mapping[str, float], weights: Mapping[str, float]) -> float | None:
    """The smallest of the weighted parts: no strength makes up for a weakness."""
    return min((value * weights[name] for name, value in values.items()), default=None)


def first_failing(values: Mapping[str, float], weights: Mapping[str, float]) -> float | None:
    """The sum of the weighted parts up to the first that falls short of 1, which still counts: the
    order is a ladder, and nothing above a missing rung is seen."""
    climbed: dict[str, float] = {}
    for name, value in values.items():
        climbed[name] = value
        if value < FULL:
            break
    return weighted(climbed, weights)


def gated(gates: Collection[str]) -> Rule:
    """The sum of the weighted parts if every gate is at least 1, else that of the gates alone.

    With parts in [0, 1] and weights from 0, what failed a gate is worth no more than what passed
    it. A gate that abstains is not open: what the other gates say counts, and without any there is
    no reward.
    """

    def rule(values: Mapping[str, float], weights: Mapping[str, float]) -> float | None:
        said = {name: value for name, value in values.items() if name in gates}
        is_open = len(said) == len(set(gates)) and all(value >= FULL for value in said.values())
        return weighted(values if is_open else said, weights)

    return rule
