"""Verifiable rewards that read the grader's verdict."""

from __future__ import annotations

from palestra.rl.errors import GraderError
from palestra.rl.types import Outcome, Sandbox, Trajectory, Verdict


def _verdict(trajectory: Trajectory) -> Verdict:
    verdict = trajectory.verdict
    if verdict is None or verdict.outcome is Outcome.INFRA_FAILURE:
        reason = verdict.reason if verdict else "it was not graded"
        raise GraderError(f"trajectory {trajectory.id} has no verdict: {reason}")
    return verdict


async def tests_pass(trajectory: Trajectory, box: Sandbox | None) -> float:
    """1.0 when every hidden check passed, else 0.0; raises ``GraderError`` without a verdict."""
    return 1.0 if _verdict(trajectory).solved else 0.0


async def tests_fraction(trajectory: Trajectory, box: Sandbox | None) -> float:
    """Share of hidden checks that passed, in [0, 1]; raises ``GraderError`` without a verdict."""
    verdict = _verdict(trajectory)
    if verdict.outcome is not Outcome.GRADED or not verdict.passed:
        return 0.0
    return sum(verdict.passed.values()) / len(verdict.passed)
