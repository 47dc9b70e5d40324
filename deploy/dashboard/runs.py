"""Which runs there are, and how each of them is; no path of a request leads out of their folder."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from palestra.deploy.run_folder import CONFIG, JOURNAL, LOCK, is_running
from palestra.deploy.text import one_line
from palestra.rl.errors import UserError
from palestra.rl.journal import Journal

SUMMARY = "summary.json"
LOCKED_S = 0.5
"""How long a journal that another process has locked is waited for."""
MAX_FILE = 8 << 20
"""Larger configurations and summaries are not read: they are none."""


class UnknownRun(LookupError):
    """No run of this name is here."""


class State(StrEnum):
    """How a run is, as its folder tells."""

    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"
    EMPTY = "empty"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """The state of a run, and one line about what went wrong, if anything did.

    Example: ``Condition(state=State.UNREADABLE, problem="journal.sqlite: not a journal ...")``
    """

    state: State
    problem: str = ""


class Runs:
    """The runs below a folder, or the one run that the folder is.

    Raises ``UserError`` where there is no such folder.

    Example: ``Runs(Path("runs")).path("tiny") == Path("runs/tiny")``
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise UserError(f"{root}: there is no such folder; give one that holds runs")
        self.root = root.resolve()
        self._single = _is_run(self.root)

    def names(self) -> list[str]:
        """The names of all runs, sorted; links that lead out of the folder are left out."""
        if self._single:
            return [self.root.name]
        try:
            entries = sorted(self.root.iterdir())
        except OSError:
            return []
        return [entry.name for entry in entries if self._inside(entry) and _is_run(entry)]

    def path(self, name: str) -> Path:
        """The folder of a run, looked up among all names; raises ``UnknownRun``."""
        if name not in self.names():
            raise UnknownRun(name)
        return self.root if self._single else self.root / name

    def file(self, name: str, *parts: str) -> Path | None:
        """A file of a run, if it is there and lies below the folder of runs, links followed."""
        path = self.path(name).joinpath(*parts)
        return path if path.is_file() and self._inside(path) else None

    def journal(self, name: str) -> Journal:
        """The journal of a run, opened read-only; raises ``UserError`` with what is wrong."""
        path = self.file(name, JOURNAL)
        if path is None or not path.stat().st_size:
            raise UserError("nothing has been recorded yet")
        return Journal(path, read_only=True, timeout=LOCKED_S)

    def condition(self, name: str) -> Condition:
        """State and problem; opens the journal to see that it can be read."""
        path = self.path(name)
        problem = self._problem(name)
        if is_running(path):
            return Condition(state=State.RUNNING, problem=problem)
        journal = self.file(name, JOURNAL)
        if journal is None or not journal.stat().st_size:
            return Condition(state=State.EMPTY, problem=problem)
        if problem:
            return Condition(state=State.UNREADABLE, problem=problem)
        summary = self.json(name, SUMMARY)
        status = one_line(str(summary.get("status", "")))
        if status in (State.DONE, State.STOPPED, State.FAILED):
            reason = one_line(str(summary.get("reason", "")))
            return Condition(state=State(status), problem=reason)
        return Condition(state=State.STOPPED, problem="it ended without a summary")

    def fingerprint(self, name: str) -> str:
        """Changes whenever something was recorded, or the run began or ended."""
        path = self.path(name)
        files = (path / JOURNAL, path / f"{JOURNAL}-wal", path / SUMMARY)
        return f"{is_running(path)} " + " ".join(map(_stamp, files))

    def json(self, name: str, file: str) -> dict[str, Any]:
        """An object in a JSON file of a run; empty when there is none that can be read."""
        return _object(self.text(name, file), json.loads)

    def config(self, name: str) -> dict[str, Any]:
        """The run's resolved configuration; empty when there is none that can be read."""
        return _object(self.text(name, CONFIG), tomllib.loads)

    def text(self, name: str, file: str) -> str:
        """A small text file of a run; empty when there is none."""
        path = self.file(name, file)
        try:
            if path is None or path.stat().st_size > MAX_FILE:
                return ""
            return path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def _problem(self, name: str) -> str:
        try:
            with self.journal(name) as journal:
                journal.last_step()
        except UserError as error:
            return one_line(str(error)).replace(f"{self.root}/", "")
        return ""

    def _inside(self, path: Path) -> bool:
        try:
            return path.resolve(strict=True).is_relative_to(self.root)
        except (OSError, RuntimeError):  # gone meanwhile, or a loop of links
            return False


def _is_run(path: Path) -> bool:
    return path.is_dir() and any((path / name).exists() for name in (LOCK, CONFIG, JOURNAL))


def _stamp(path: Path) -> str:
    try:
        found = path.stat()
    except OSError:
        return "-"
    # A reader makes an empty file beside a journal, which says nothing of the run.
    return f"{found.st_ino}.{found.st_mtime_ns}.{found.st_size}" if found.st_size else "-"


def _object(text: str, load: Any) -> dict[str, Any]:
    try:
        value = load(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
