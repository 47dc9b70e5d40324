"""The tasks of a source that are fit to train on, as grading them has shown."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from palestra.envs.check import check_task
from palestra.envs.concurrency import bounded
from palestra.envs.taskset import Skipped, TaskSet
from palestra.rl.types import Grader, Task

FORMAT = "1"


@dataclass(frozen=True, kw_only=True)
class Gate:
    """Lets tasks through whose reference, if they have one, passes every time and that doing
    nothing does not solve.

    A task that fails is graded once more when nothing else runs, so that a busy machine is not held
    against it. ``cache`` is a folder that remembers what was found, by task and ``settings``:
    whatever else a verdict depends on.

    Example: ``tasks = await Gate(grader=grader, cache=folder, settings="check_s=10").let(tasks)``
    """

    grader: Grader
    cache: Path
    settings: str
    concurrency: int = 4

    async def let(self, tasks: TaskSet, on_done: Callable[[], None] = lambda: None) -> TaskSet:
        """``tasks`` without those that are not fit, which are in ``skipped`` with the reason.

        Raises ``InfraError`` when a verdict cannot be reached.
        """

        async def check(task: Task) -> str:
            found = self._get(task)
            if found is None:
                found = (await check_task(task, self.grader)).problem
                if not found:
                    self._put(task, found)
            on_done()
            return found

        first = await bounded(check, tasks.tasks, self.concurrency)
        fit = [place for place, problem in enumerate(first) if not problem]
        left_out: list[Skipped] = []
        for place in (place for place, problem in enumerate(first) if problem):
            task = tasks.tasks[place]
            if problem := await self._again(task):
                left_out.append(Skipped(id=task.id, reason=problem))
            else:
                fit.append(place)
        kept = tasks.at(sorted(fit))
        return replace(tasks, tasks=kept, skipped=(*tasks.skipped, *left_out))

    async def _again(self, task: Task) -> str:
        found = self._get(task)
        if found is None:
            found = (await check_task(task, self.grader)).problem
            self._put(task, found)
        return found

    def _path(self, task: Task) -> Path:
        text = repr((FORMAT, self.settings, task))
        return self.cache / f"{hashlib.sha256(text.encode(errors='replace')).hexdigest()[:32]}.json"

    def _get(self, task: Task) -> str | None:
        try:
            found = json.loads(self._path(task).read_text())
        except (OSError, ValueError):
            return None  # never written, or cut short: check it again
        return found if isinstance(found, str) else None

    def _put(self, task: Task, problem: str) -> None:
        path = self._path(task)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}.tmp")
        draft.write_text(json.dumps(problem))
        draft.replace(path)
