"""What a source of tasks returns: the tasks, and what was left out and why."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Generic, TypeVar, overload

from palestra.rl.errors import TaskError
from palestra.rl.types import Task

K = TypeVar("K")
KEPT = 64


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """Something of a source that gave no task.

    Example: ``Skipped(id="mbpp.jsonl row 12", reason="field code: missing")``
    """

    id: str
    reason: str


class LazyTasks(Sequence[Task], Generic[K]):
    """Tasks that are made when they are asked for; only their keys and the last few are kept.

    Example: ``LazyTasks([0, 812], lambda offset: humaneval_task(rows[offset]))``
    """

    def __init__(self, keys: Sequence[K], make: Callable[[K], Task]) -> None:
        self._keys = keys
        self._make = make
        self._get = lru_cache(maxsize=KEPT)(lambda place: make(keys[place]))

    def __len__(self) -> int:
        return len(self._keys)

    @overload
    def __getitem__(self, place: int) -> Task: ...
    @overload
    def __getitem__(self, place: slice) -> LazyTasks[K]: ...
    def __getitem__(self, place: int | slice) -> Task | LazyTasks[K]:
        if isinstance(place, slice):
            return LazyTasks(self._keys[place], self._make)
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        return self._get(place % len(self))

    def at(self, places: Iterable[int]) -> LazyTasks[K]:
        """Those at these places."""
        return LazyTasks([self._keys[place] for place in places], self._make)


@dataclass(frozen=True, kw_only=True)
class TaskSet:
    """Tasks of one source for one environment, in a stable order.

    ``labels["split"]`` of a task, where there is one, is ``train`` or a held-out one: of repair
    tasks ``heldout_mutations`` or ``heldout_functions``, of other environments ``heldout``.
    ``validated`` tasks were made by running them: the reference passes, and what the agent starts
    from fails.

    Example: ``TaskSet(source="repair:", env="palestra/Repair-v0", tasks=tasks, skipped=())``
    """

    source: str
    env: str
    tasks: Sequence[Task]
    skipped: tuple[Skipped, ...] = ()
    validated: bool = False

    def split(self, name: str) -> Sequence[Task]:
        """The tasks labelled with this split."""
        return self.at(self._places.get(name, ()))

    def at(self, places: Sequence[int]) -> Sequence[Task]:
        """The tasks at these places."""
        if isinstance(self.tasks, LazyTasks):
            return self.tasks.at(places)
        return tuple(self.tasks[place] for place in places)

    def task_of(self, task_id: str) -> Task:
        """The task with this id; raises ``TaskError`` when there is none."""
        if task_id not in self._by_id:
            raise TaskError(f"no task {task_id!r} in {self.source}")
        return self.tasks[self._by_id[task_id]]

    @property
    def splits(self) -> Mapping[str, int]:
        """How many tasks each split has, in order of appearance."""
        return {name: len(places) for name, places in self._places.items()}

    @cached_property
    def _by_id(self) -> Mapping[str, int]:
        return {task.id: place for place, task in enumerate(self.tasks)}

    @cached_property
    def _places(self) -> Mapping[str, Sequence[int]]:
        found: dict[str, list[int]] = {}
        for place, task in enumerate(self.tasks):
            found.setdefault(task.labels.get("split", ""), []).append(place)
        return found
