"""Verifiable rewards for finishing instead of running out of turns, tokens or time."""

from __future__ import annotations

from palestra.rl.types import Sandbox, Stop, Trajectory


async def submitted(trajectory: Trajectory, box: Sandbox | None) -> float:
    """1.0 when the policy ended the episode itself, else 0.0."""
    return 1.0 if trajectory.stop is Stop.SUBMITTED else 0.0


async def within_budget(trajectory: Trajectory, box: Sandbox | None, *, tokens: int = 0) -> float:
    """1.0 for an episode within its budget and, unless 0, within ``tokens`` generated ones."""
    over = 0 < tokens < trajectory.generated
    return 0.0 if over or trajectory.stop is Stop.OVER_BUDGET else 1.0
