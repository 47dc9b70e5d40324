"""A part of a reward as it was recorded, for rewards that are computed again."""

from __future__ import annotations

from palestra.rl.errors import Abstain
from palestra.rl.types import Sandbox, Trajectory


async def recorded(trajectory: Trajectory, box: Sandbox | None, *, part: str = "") -> float:
    """What the journal has for a part, so that no judge is asked again (`palestra score RUN`)."""
    if trajectory.reward is None or part not in trajectory.reward.parts:
        raise Abstain(f"no part {part!r} is recorded")
    return trajectory.reward.parts[part]
