"""Sources that are gone through once and whose tasks are made again when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from palestra.envs.complete import Complete
from palestra.envs.formats import FOLDERS, ROWS, FolderFormat, FromRow
from palestra.envs.needs import Needs
from palestra.envs.repair import Repair
from palestra.envs.rows import BadRow, Rows, record
from palestra.envs.taskset import LazyTasks, Skipped, TaskSet
from palestra.rl.errors import UserError
from palestra.rl.types import SandboxProvider, Task

K = TypeVar("K")


@dataclass(frozen=True, kw_only=True)
class Entries(Generic[K]):
    """What a source may make tasks of: ``tries`` gives, once, a name for people, a key, and the
    first try; ``make`` makes the task of a key again. Both raise ``BadRow``.
    """

    tries: Iterator[tuple[str, K, Callable[[], Task]]]
    make: Callable[[K], Task]


def entries(kind: str, path: Path) -> Entries[Any]:
    """What there is of a format at a path: a folder, or the rows of a file. Raises ``UserError``
    when it cannot be read."""
    if kind in FOLDERS and (path.is_dir() or kind not in ROWS):
        return folder_entries(path, FOLDERS[kind])
    return row_entries(path, ROWS[kind])


def row_entries(path: Path, make: FromRow) -> Entries[int]:
    """The rows of a file; raises ``UserError`` when it cannot be read."""
    rows = Rows(path)
    tries = (
        (f"{path.name} row {number}", place, partial(lambda row: make(record(row)), row))
        for number, place, row in rows
    )
    return Entries(tries=tries, make=lambda place: make(rows[place]))


def folder_entries(folder: Path, format: FolderFormat) -> Entries[str]:
    """What lies in a folder; raises ``UserError`` when there is nothing of the format."""
    names = format.names(folder) if folder.is_dir() else ()
    if not names:
        raise UserError(f"{folder} is no folder of this format")
    make = partial(format.make, folder)
    return Entries(tries=((name, name, partial(make, name)) for name in names), make=make)


async def lazy_tasks(
    source: str,
    found: Entries[K],
    provider: SandboxProvider,
    *,
    split: str | None,
    limit: int | None,
) -> TaskSet:
    """The tasks of ``split``, at most ``limit``; no more than one is held at a time.

    Left out and named are entries that give no task, that need what boxes of ``provider`` lack, and
    that have an id which came before. Raises ``UserError`` where tasks need several environments,
    and later on where an entry gives no task any more.
    """

    def again(key: K) -> Task:
        try:
            return found.make(key)
        except BadRow as error:
            raise UserError(f"{source} was changed while it was in use: {error}") from error

    needs = Needs(provider)
    keys: list[K] = []
    skipped: list[Skipped] = []
    ids: set[str] = set()
    envs: set[str] = set()
    for name, key, first_try in found.tries:
        if limit is not None and len(keys) >= limit:
            break
        try:
            task = first_try()
            if split is not None and task.labels.get("split") != split:
                continue
            if problem := await _problem(task, ids, needs):
                raise BadRow(f"{task.id}: {problem}")
        except BadRow as error:
            skipped.append(Skipped(id=name, reason=str(error)))
            continue
        if parts := task.labels.get("left_out"):
            skipped.append(Skipped(id=name, reason=f"a part of it: {parts}"))
        ids.add(task.id)
        envs.add(env_of(task))
        keys.append(key)
    return TaskSet(
        source=source,
        env=one_env(source, envs),
        tasks=LazyTasks(keys, again),
        skipped=tuple(skipped),
    )


async def _problem(task: Task, ids: set[str], needs: Needs) -> str:
    return "there is one of this id" if task.id in ids else await needs.lacking(task)


def one_env(source: str, envs: Collection[str]) -> str:
    """The environment that plays a source; raises ``UserError`` where there are several."""
    if len(envs) > 1:
        raise UserError(f"{source} mixes tasks of {', '.join(sorted(envs))}")
    return next(iter(envs), Complete.name)


def env_of(task: Task) -> str:
    """The environment that plays a task."""
    return {"repair": Repair.name, "complete": Complete.name}.get(task.kind, task.source)
