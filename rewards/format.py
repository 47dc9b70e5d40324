"""Verifiable reward for the form of the replies, whatever they achieve."""

from __future__ import annotations

from palestra.rl.types import Sandbox, Trajectory


async def well_formed(trajectory: Trajectory, box: Sandbox | None) -> float:
    """Share of turns without an error, in [0, 1]; 0.0 for an episode without turns."""
    good = sum(not turn.error for turn in trajectory.turns)
    return good / len(trajectory.turns) if trajectory.turns else 0.0
