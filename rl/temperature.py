"""Sampling temperature by training step (K2 report section 3.2.3).

K2 says that the temperature is high early and decays over training; shape and endpoints are
unpublished. Evaluation has a temperature of its own, which never changes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from palestra.rl.config import TemperatureDecayConfig


def temperature_of(step: int, start: float, decay: TemperatureDecayConfig) -> float:
    """Temperature of step ``step`` (from 1): ``start`` in step 1, ``decay.final`` from
    ``decay.steps`` on, monotone between; or what ``decay.points`` say."""
    if decay.shape == "constant":
        return start
    if decay.shape == "points":
        return _through(decay.points, step)
    if step >= decay.steps:
        return decay.final
    done = (step - 1) / (decay.steps - 1)
    final = decay.final
    match decay.shape:
        case "linear":
            value = start + (final - start) * done
        case "cosine":
            value = start + (final - start) * (1 - math.cos(math.pi * done)) / 2
        case "exponential":
            value = start * (final / start) ** done
    # Rounding must not leave the range.
    return min(max(value, min(start, final)), max(start, final))


def _through(points: Sequence[tuple[int, float]], step: int) -> float:
    """Straight lines between the points, constant outside of them."""
    if step <= points[0][0]:
        return points[0][1]
    for (left, low), (right, high) in pairwise(points):
        if step <= right:
            return low + (high - low) * (step - left) / (right - left)
    return points[-1][1]
