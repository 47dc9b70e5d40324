"""Verifiable reward for finishing instead of running out of turns, tokens or time."""

from __future__ import annotations

from palestra.rl.types import Sandbox, Stop, Trajectory


async def submitted(trajectory: Trajectory, box: Sandbox | None) -> float:
    """1.0 when the policy ended the episode itself, else 0.0."""
    return 1.0 if trajectory.stop is Stop.SUBMITTED else 0.0
