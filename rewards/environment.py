"""The reward that an environment gave which judges by itself."""

from __future__ import annotations

from palestra.rl.errors import GraderError
from palestra.rl.types import Sandbox, Trajectory

REWARD = "reward"
"""The name under which ``Verdict.rewards`` of such an environment has its total."""


async def environment(trajectory: Trajectory, box: Sandbox | None) -> float:
    """What the environment says that the episode is worth; raises ``GraderError`` when it said
    nothing, as of a solution that was not played."""
    rewards = trajectory.verdict.rewards if trajectory.verdict else {}
    if REWARD not in rewards:
        raise GraderError(f"trajectory {trajectory.id}: its environment gave no reward")
    return rewards[REWARD]
