"""Whether a step lost so many episodes that learning from the rest would be wrong."""

from __future__ import annotations

from collections.abc import Sequence

from palestra.rl.errors import PalestraError, UserError
from palestra.rl.types import Outcome, Trajectory


class TooManyInfraFailures(PalestraError):
    """A step lost so many episodes to our own faults that learning from the rest would bias it."""


def ensure_enough(
    step: int, trajectories: Sequence[Trajectory], *, max_infra_failures: float, tasks: int
) -> None:
    """Raise ``TooManyInfraFailures`` above that share of episodes, and ``UserError`` when no task
    of the step can be played: one bad task of the run's ``tasks`` is left out, but all of several
    are wrong use."""
    ours = _of(trajectories, Outcome.INFRA_FAILURE)
    if len(ours) > max_infra_failures * len(trajectories):
        raise TooManyInfraFailures(
            f"step {step}: {len(ours) / len(trajectories):.0%} of the episodes failed for reasons "
            f"of ours (limit {max_infra_failures:.0%}): {_reasons(ours)}"
        )
    broken = _of(trajectories, Outcome.TASK_FAILURE)
    lost = len(ours) + len(broken)
    if lost == len(trajectories) and len({t.task_id for t in broken}) >= min(2, tasks):
        raise UserError(f"step {step}: none of its tasks can be played: {_reasons(broken)}")


def _of(trajectories: Sequence[Trajectory], outcome: Outcome) -> list[Trajectory]:
    return [t for t in trajectories if t.outcome is outcome]


def _reasons(lost: Sequence[Trajectory]) -> str:
    return "; ".join(sorted({t.reason for t in lost if t.reason})[:3])
