"""Are the tasks sound: the reference passes, doing nothing fails, and repeats agree.

Also grades given solutions without a model. Both ask the trusted grader, in fresh boxes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from palestra.envs.concurrency import bounded
from palestra.envs.files import work_of
from palestra.envs.red_team import RedTeam
from palestra.envs.taskset import Skipped, TaskSet
from palestra.rl.errors import GraderError
from palestra.rl.types import Grader, Json, Outcome, Task, Verdict, Work


@dataclass(frozen=True, kw_only=True)
class TaskCheck:
    """What grading said about one task; ``attacks`` maps each attack tried to what it gained.

    Example: ``TaskCheck(id="repair/clamp/07", reference=True, noop=False, flaky=False)``
    """

    id: str
    reference: bool
    noop: bool
    flaky: bool
    reason: str = ""
    attacks: Mapping[str, str] = field(default_factory=dict)

    @property
    def problem(self) -> str:
        """Why the task must not be trained on; empty when it may."""
        fooled = [name for name, gain in self.attacks.items() if gain]
        found = [
            "" if self.reference else f"the reference fails: {self.reason}".rstrip(": "),
            "doing nothing passes" if self.noop else "",
            "repeats of the same grading differ" if self.flaky else "",
            f"passed by attack {', '.join(fooled)}" if fooled else "",
        ]
        return "; ".join(text for text in found if text)


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """All tasks of a source, checked; ``sound`` says whether none has a problem."""

    source: str
    tasks: tuple[TaskCheck, ...]
    skipped: tuple[Skipped, ...]
    wall_s: float

    @property
    def sound(self) -> bool:
        """True when there are tasks and every one is fit to train on."""
        return bool(self.tasks) and not any(task.problem for task in self.tasks)

    def to_json(self) -> dict[str, Json]:
        """What ``palestra tasks check --json`` prints; counts are numbers of tasks."""
        attacks = sorted({name for task in self.tasks for name in task.attacks})
        return {
            "source": self.source,
            "tasks": len(self.tasks),
            "reference_pass": sum(task.reference for task in self.tasks),
            "noop_pass": sum(task.noop for task in self.tasks),
            "flaky": sum(task.flaky for task in self.tasks),
            "red_team": {
                name: sum(bool(task.attacks.get(name)) for task in self.tasks) for name in attacks
            },
            "invalid": [{"id": t.id, "reason": t.problem} for t in self.tasks if t.problem],
            "skipped": [{"id": item.id, "reason": item.reason} for item in self.skipped],
            "wall_s": round(self.wall_s, 3),
        }


async def check_tasks(
    taskset: TaskSet,
    grader: Grader,
    *,
    repeats: int = 2,
    concurrency: int = 4,
    red_team: RedTeam | None = None,
    on_done: Callable[[TaskCheck], None] | None = None,
) -> CheckReport:
    """Grade each task's reference ``repeats`` times, its untouched files, and what attacks leave.

    Raises ``InfraError`` when a verdict cannot be reached.
    """
    start = time.monotonic()

    async def check(task: Task) -> TaskCheck:
        found = await _check(task, grader, repeats, red_team)
        if on_done:
            on_done(found)
        return found

    checked = await bounded(check, taskset.tasks, concurrency)
    return CheckReport(
        source=taskset.source,
        tasks=tuple(checked),
        skipped=taskset.skipped,
        wall_s=time.monotonic() - start,
    )


async def _check(task: Task, grader: Grader, repeats: int, red_team: RedTeam | None) -> TaskCheck:
    reference = work_of(task, task.reference)
    verdicts = [await _grade(task, reference, grader) for _ in range(max(1, repeats))]
    nothing = await _grade(task, work_of(task, task.files), grader)
    return TaskCheck(
        id=task.id,
        reference=all(verdict.solved for verdict in verdicts),
        noop=nothing.solved,
        flaky=any(verdict.passed != verdicts[0].passed for verdict in verdicts),
        reason=next((_reason(verdict) for verdict in verdicts if not verdict.solved), ""),
        attacks=await red_team.gains(task, grader, nothing) if red_team else {},
    )


async def _grade(task: Task, work: Work, grader: Grader) -> Verdict:
    verdict = await grader(task, work)
    if verdict.outcome is Outcome.INFRA_FAILURE:
        raise GraderError(f"{task.id}: {verdict.reason}")
    return verdict


def _reason(verdict: Verdict) -> str:
    failed = [name for name, passed in verdict.passed.items() if not passed]
    return verdict.reason or (f"check {failed[0]}" if failed else "")
