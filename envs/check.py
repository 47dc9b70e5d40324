"""Are the tasks sound: the reference passes in time, doing nothing fails, and repeats agree.

Every verdict is the trusted grader's, in fresh boxes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from palestra.envs.concurrency import bounded
from palestra.envs.files import work_of
from palestra.envs.fresh import Stage, starts_differ
from palestra.envs.red_team import RedTeam
from palestra.envs.taskset import Skipped, TaskSet
from palestra.rl.errors import GraderError, PathRefused, TaskError, UserError
from palestra.rl.types import Grader, Json, Outcome, Task, Verdict, Work

SLOWEST = 5
AT_FAULT = (TaskError, UserError, PathRefused)
"""What is raised for a task that cannot be set up or graded as it is."""


@dataclass(frozen=True, kw_only=True)
class TaskCheck:
    """What grading said about one task; ``attacks`` maps each attack tried to what it gained.

    ``seconds`` is the longest that grading the reference took, waiting for a box included;
    ``differs`` what is not the same in two fresh starts. A task is ``unproven`` that comes without
    a reference.

    Example: ``TaskCheck(id="repair/clamp/07", reference=True, noop=False, flaky=False)``
    """

    id: str
    reference: bool
    noop: bool
    flaky: bool
    reason: str = ""
    differs: str = ""
    seconds: float = 0.0
    unproven: bool = False
    attacks: Mapping[str, str] = field(default_factory=dict)

    @property
    def problem(self) -> str:
        """Why the task must not be trained on; empty when it may."""
        fooled = [name for name, gain in self.attacks.items() if gain]
        found = [
            ""
            if self.reference or self.unproven
            else f"the reference fails: {self.reason}".rstrip(": "),
            "doing nothing passes" if self.noop else "",
            "repeats of the same grading differ" if self.flaky else "",
            f"two fresh starts differ: {self.differs}" if self.differs else "",
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

    @property
    def slowest(self) -> list[TaskCheck]:
        """The tasks whose references took longest to grade, slowest first."""
        return sorted(self.tasks, key=lambda task: -task.seconds)[:SLOWEST]

    def to_json(self) -> dict[str, Json]:
        """What ``palestra tasks check --json`` prints; counts are numbers of tasks."""
        attacks = sorted({name for task in self.tasks for name in task.attacks})
        return {
            "source": self.source,
            "tasks": len(self.tasks),
            "reference_pass": sum(task.reference for task in self.tasks),
            "no_reference": sum(task.unproven for task in self.tasks),
            "noop_pass": sum(task.noop for task in self.tasks),
            "flaky": sum(task.flaky for task in self.tasks),
            "red_team": {
                name: sum(bool(task.attacks.get(name)) for task in self.tasks) for name in attacks
            },
            "invalid": [{"id": t.id, "reason": t.problem} for t in self.tasks if t.problem],
            "skipped": [{"id": item.id, "reason": item.reason} for item in self.skipped],
            "slowest": {t.id: round(t.seconds, 3) for t in self.slowest},
            "wall_s": round(self.wall_s, 3),
        }


async def check_tasks(
    taskset: TaskSet,
    grader: Grader,
    *,
    repeats: int = 3,
    concurrency: int = 4,
    stage: Stage | None = None,
    red_team: RedTeam | None = None,
    on_done: Callable[[TaskCheck], None] | None = None,
) -> CheckReport:
    """Grade each task's reference ``repeats`` times, its untouched files, and what attacks leave.

    On a ``stage`` every task is set up twice, which must give the same files. Raises ``InfraError``
    when a verdict cannot be reached.
    """
    start = time.monotonic()

    async def check(task: Task) -> TaskCheck:
        found = await check_task(task, grader, repeats=repeats)
        try:
            if stage:
                found = replace(found, differs=await starts_differ(task, stage))
            if red_team:
                found = replace(found, attacks=await red_team.gains(task, grader, noop=found.noop))
        except AT_FAULT as error:
            found = replace(found, reference=False, reason=str(error))
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


async def check_task(task: Task, grader: Grader, *, repeats: int = 3) -> TaskCheck:
    """Grade a task's reference ``repeats`` times, and its untouched files; raises as
    ``check_tasks``."""
    try:
        return await _graded(task, grader, repeats)
    except AT_FAULT as error:
        return TaskCheck(id=task.id, reference=False, noop=False, flaky=False, reason=str(error))


async def _graded(task: Task, grader: Grader, repeats: int) -> TaskCheck:
    if not task.hidden:  # its environment judges what is done while it is played
        return TaskCheck(id=task.id, reference=False, noop=False, flaky=False, unproven=True)
    reference = work_of(task, task.reference)
    verdicts: list[Verdict] = []
    slowest = 0.0
    for _ in range(max(1, repeats) if task.reference else 0):
        start = time.monotonic()
        verdicts.append(await _grade(task, reference, grader))
        slowest = max(slowest, time.monotonic() - start)
    nothing = await _grade(task, work_of(task, task.files), grader)
    return TaskCheck(
        id=task.id,
        reference=bool(verdicts) and all(verdict.solved for verdict in verdicts),
        noop=nothing.solved,
        flaky=any(verdict.passed != verdicts[0].passed for verdict in verdicts),
        reason=next((_reason(verdict) for verdict in verdicts if not verdict.solved), ""),
        seconds=slowest,
        unproven=not task.reference,
    )


async def _grade(task: Task, work: Work, grader: Grader) -> Verdict:
    verdict = await grader(task, work)
    if verdict.outcome is Outcome.INFRA_FAILURE:
        raise GraderError(f"{task.id}: {verdict.reason}")
    return verdict


def _reason(verdict: Verdict) -> str:
    failed = [name for name, passed in verdict.passed.items() if not passed]
    return verdict.reason or (f"check {failed[0]}" if failed else "")
