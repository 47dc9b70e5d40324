"""The reward that a task's own verifier wrote."""

from __future__ import annotations

from palestra.rewards.tests_pass import tests_pass
from palestra.rl.types import Sandbox, Trajectory


async def verifier(trajectory: Trajectory, box: Sandbox | None) -> float:
    """The mean of the rewards that the verifier wrote, our default for several; without any, what
    ``tests_pass`` says. Raises ``GraderError`` without a verdict."""
    passed = await tests_pass(trajectory, box)
    rewards = trajectory.verdict.rewards if trajectory.verdict else {}
    return sum(rewards.values()) / len(rewards) if rewards else passed
