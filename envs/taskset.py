"""What a source of tasks returns: the tasks, and what was left out and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from palestra.rl.types import Task


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """Something of a source that gave no task.

    Example: ``Skipped(id="mbpp.jsonl row 12", reason="field code: missing")``
    """

    id: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class TaskSet:
    """Tasks of one source for one environment, in a stable order.

    ``labels["split"]`` of a task, where there is one, is ``train``, ``heldout_mutations`` or
    ``heldout_functions``. ``validated`` tasks were made by running them: the reference passes, and
    what the agent starts from fails.

    Example: ``TaskSet(source="repair:", env="palestra/Repair-v0", tasks=tasks, skipped=())``
    """

    source: str
    env: str
    tasks: tuple[Task, ...]
    skipped: tuple[Skipped, ...] = ()
    validated: bool = False

    def split(self, name: str) -> tuple[Task, ...]:
        """The tasks labelled with this split."""
        return tuple(task for task in self.tasks if task.labels.get("split") == name)

    @property
    def splits(self) -> Mapping[str, int]:
        """How many tasks each split has, in order of appearance."""
        counts: dict[str, int] = {}
        for task in self.tasks:
            name = task.labels.get("split", "")
            counts[name] = counts.get(name, 0) + 1
        return counts
