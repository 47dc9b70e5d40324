"""Reward functions and weights turned into one ``Reward``; owns no reward function itself."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

from palestra.rewards.provenance import of_reward
from palestra.rl.errors import InfraError, boundary
from palestra.rl.types import Provenance, Reward, RewardFn, Sandbox, Trajectory


class RewardError(InfraError):
    """A reward could not be computed; the episode then has no reward, not a reward of 0."""


@dataclass(frozen=True, kw_only=True)
class Weighted:
    """A reward function and what it counts for in the total.

    Example: ``Weighted(reward=tests_pass, weight=1.0)``
    """

    reward: RewardFn
    weight: float = 1.0


async def score(
    trajectory: Trajectory, box: Sandbox | None, rewards: Mapping[str, Weighted]
) -> Reward:
    """Run every reward function and return the weighted sum with its unweighted parts; each of
    several rewards that the task's verifier wrote is a part for people, ``verifier/NAME``.

    Raises ``RewardError`` when a function raises anything of its own or returns a value that is not
    a finite number; an error that is already ours passes through.
    """
    parts: dict[str, float] = {}
    provenance: dict[str, Provenance] = {}
    for name, weighted in rewards.items():
        started = time.monotonic()
        async with boundary(RewardError, f"reward {name}"):
            value = float(await weighted.reward(trajectory, box))
        if not math.isfinite(value):
            raise RewardError(f"reward {name}: {value} is not a finite number")
        parts[name] = value
        provenance[name] = of_reward(weighted.reward, trajectory, time.monotonic() - started)
    total = sum(parts[n] * w.weight for n, w in rewards.items())
    written = trajectory.verdict.rewards if trajectory.verdict else {}
    if len(written) > 1:
        parts |= {f"verifier/{name}": value for name, value in written.items()}
    return Reward(total=total, parts=parts, provenance=provenance)
