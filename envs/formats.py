"""The formats that tasks are read from, by name: how a row or a folder becomes a task.

Nothing of a record is run or unpickled here, and no path in it leads out of its folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from palestra.envs.bigcodebench import bigcodebench_task
from palestra.envs.exercism import exercise_task
from palestra.envs.folders import text_within, within
from palestra.envs.livecodebench import livecodebench_task
from palestra.envs.math.rows import math_task
from palestra.envs.quixbugs import quixbugs_names, quixbugs_task
from palestra.envs.records import humaneval_task, mbpp_task
from palestra.envs.stdin_records import apps_task, contest_task
from palestra.envs.task_json import task_from_json
from palestra.envs.translated import is_translated, translated_task
from palestra.rl.types import Json, Task

FromRow: TypeAlias = Callable[[Mapping[str, Json]], Task]
"""Makes a task of a row; raises ``BadRow``."""


@dataclass(frozen=True, kw_only=True)
class FolderFormat:
    """``names`` of the tasks in a folder, and how one of them is made; ``make`` raises ``BadRow``.

    Example: ``FolderFormat(names=quixbugs_names, make=quixbugs_task)``
    """

    names: Callable[[Path], Sequence[str]]
    make: Callable[[Path, str], Task]


def humaneval_row(row: Mapping[str, Json]) -> Task:
    """A HumanEval record of any language; raises ``BadRow``."""
    return translated_task(row) if is_translated(row) else humaneval_task(row)


def mbpp_row(row: Mapping[str, Json]) -> Task:
    """An MBPP record, or one in the HumanEval form; raises ``BadRow``."""
    return humaneval_row(row) if "entry_point" in row or is_translated(row) else mbpp_task(row)


def _exercises(folder: Path) -> list[str]:
    return sorted(path.parent.parent.name for path in folder.glob("*/.meta/config.json"))


def _exercise(folder: Path, name: str) -> Task:
    return exercise_task(within(folder, name))


def _problems(folder: Path) -> list[str]:
    return sorted(path.parent.name for path in folder.glob("*/question.txt"))


_APPS_FILES = {"question": "question.txt", "starter_code": "starter_code.py"}
_APPS_FILES |= {"input_output": "input_output.json", "solutions": "solutions.json"}


def _apps_folder(folder: Path, name: str) -> Task:
    row: dict[str, Json] = {"problem_id": name}
    for field, file in _APPS_FILES.items():
        if (folder / name / file).is_file():
            row[field] = text_within(folder, f"{name}/{file}")
    return apps_task(row)


ROWS: Mapping[str, FromRow] = {
    "mbpp": mbpp_row,
    "humaneval": humaneval_row,
    "livecodebench": livecodebench_task,
    "codecontests": contest_task,
    "apps": apps_task,
    "bigcodebench": bigcodebench_task,
    "math": math_task,
    "jsonl": task_from_json,
}
FOLDERS: Mapping[str, FolderFormat] = {
    "exercism": FolderFormat(
        names=_exercises, make=lambda top, name: exercise_task(within(top, name))
    ),
    "quixbugs": FolderFormat(names=quixbugs_names, make=quixbugs_task),
    "apps": FolderFormat(names=_problems, make=_apps_folder),
}
