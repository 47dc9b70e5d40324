"""One thread that brings indexes up to date, for the runs that somebody looks at."""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path
from types import TracebackType

from palestra.deploy.dashboard.index import EpisodeIndex
from palestra.deploy.dashboard.runs import Runs, UnknownRun
from palestra.rl.errors import UserError

PATIENCE_S = 0.25
"""A request waits so long for an index that is behind, then it answers with what there is."""


class Tail:
    """Keeps the indexes of wanted runs current; a context manager that ends its thread.

    Example: ``with Tail(runs, cache) as tail: tail.want("tiny").connect()``
    """

    def __init__(self, runs: Runs, cache: Path) -> None:
        self._runs = runs
        self._cache = cache
        self._indexes: dict[str, EpisodeIndex] = {}
        self._current: dict[str, str] = {}
        self._wanted: dict[str, None] = {}
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._work, name="index", daemon=True)

    def want(self, name: str) -> EpisodeIndex:
        """The index of a run, current or soon to be; raises ``UserError`` where the journal cannot
        be read, ``UnknownRun`` where there is none."""
        fingerprint = self._runs.fingerprint(name)
        index = self._index(name)
        deadline = time.monotonic() + PATIENCE_S
        with self._changed:
            if self._current.get(name) == fingerprint:
                return index
            self._wanted[name] = None
            self._changed.notify_all()
            while name in self._wanted and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
        return index

    def done(self, name: str) -> int:
        """How many records of a run are in its index; 0 when nobody has wanted it yet."""
        with self._changed:
            index = self._indexes.get(name)
        return index.done() if index else 0

    def _index(self, name: str) -> EpisodeIndex:
        with self._changed:
            found = self._indexes.get(name)
        if found is None:
            tasks = self._runs.config(name).get("tasks")
            source = tasks.get("env") or tasks.get("source") if isinstance(tasks, dict) else ""
            environment = str(source).partition(":")[0] or "tasks"
            found = EpisodeIndex(self._cache, self._runs.path(name), environment)
        if not found.path.is_file():  # new, or removed from the cache
            with self._runs.journal(name) as journal:
                found.prepare(journal)
        with self._changed:
            return self._indexes.setdefault(name, found)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._wanted and not self._ended:
                    self._changed.wait()
                if self._ended:
                    return
                name = next(iter(self._wanted))
                del self._wanted[name]
                self._wanted[name] = None  # last in line next time
            self._turn(name)

    def _turn(self, name: str) -> None:
        """One batch of one run."""
        more = False
        try:
            fingerprint = self._runs.fingerprint(name)
            with self._runs.journal(name) as journal:
                if name not in self._current:
                    self._indexes[name].prepare(journal)
                more = self._indexes[name].update(journal)
        except (UserError, UnknownRun, OSError, sqlite3.Error):
            # Asked again when the run has changed; the request itself says what is wrong.
            fingerprint = ""
        with self._changed:
            self._current[name] = fingerprint if not more else ""
            if not more:
                self._wanted.pop(name, None)
                self._changed.notify_all()

    def __enter__(self) -> Tail:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join(timeout=10.0)
