"""The truth about a run: one SQLite file that survives ``kill -9`` and a power cut.

Owns what happened (trajectories, steps, evaluations); owns neither weights nor the configuration.
What a method has written is on disk when it returns: the file is in WAL mode with
``synchronous=FULL``, one fsync per record, because a trajectory costs seconds to play and an fsync
a few milliseconds; ``NORMAL`` would lose the last records when the machine goes down. Other
processes may read the file at any time; one process writes it.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from palestra.rl.errors import UserError
from palestra.rl.records import T, dump, load
from palestra.rl.types import Group, Json, Judgement, Reward, Trajectory

FORMAT = 1
APPLICATION_ID = 0x50414C45  # "PALE"

SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE trajectories (
    id TEXT PRIMARY KEY, step INTEGER NOT NULL, group_id TEXT NOT NULL, task_id TEXT NOT NULL,
    json TEXT NOT NULL, created REAL NOT NULL);
CREATE INDEX trajectories_by_step ON trajectories (step, id);
CREATE INDEX trajectories_by_group ON trajectories (group_id, id);
CREATE VIEW groups AS
    SELECT group_id AS id, step, task_id, COUNT(*) AS size FROM trajectories
    GROUP BY group_id, step, task_id;
CREATE TABLE steps (step INTEGER PRIMARY KEY, metrics TEXT NOT NULL, finished REAL NOT NULL);
CREATE TABLE evals (
    step INTEGER NOT NULL, split TEXT NOT NULL, task_id TEXT NOT NULL, sample INTEGER NOT NULL,
    solved INTEGER NOT NULL, trajectory TEXT, UNIQUE (step, split, task_id, sample));
"""
JUDGEMENTS = """
CREATE TABLE IF NOT EXISTS judgements (
    key TEXT PRIMARY KEY, step INTEGER NOT NULL, group_id TEXT NOT NULL, json TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS judgements_by_group ON judgements (group_id);
CREATE INDEX IF NOT EXISTS judgements_by_step ON judgements (step);
"""
"""Younger than format 1, which it does not change for those who do not know it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRow:
    """A group as far as it has been played.

    Example: ``GroupRow(id="3/repair/clamp/1", step=3, task_id="repair/clamp/1", size=8)``
    """

    id: str
    step: int
    task_id: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalRow:
    """One evaluated episode; ``step`` counts the optimizer steps done before it.

    Example: ``EvalRow(step=0, split="heldout_functions", task_id="repair/clamp/1", sample=0,
    solved=True)``
    """

    step: int
    split: str
    task_id: str
    sample: int
    solved: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One record of the journal, and its ``position`` in the order of recording, which only grows.

    ``trajectory`` is None where the record is damaged, or an evaluation kept none. ``split`` is
    that of an evaluation, empty for training.

    Example: ``Recorded(position=7, id="00003/0001/007", split="", trajectory=trajectory)``
    """

    position: int
    id: str
    split: str
    trajectory: Trajectory | None


class Journal:
    """One run's journal; a context manager that closes itself.

    ``read_only`` neither creates nor changes anything. A file that is not a journal, that is
    damaged or that a newer version wrote raises ``UserError``, and so does one that others keep
    locked for ``timeout`` seconds.
    """

    def __init__(self, path: Path, *, read_only: bool = False, timeout: float = 30.0) -> None:
        self.path = path
        if read_only and not path.is_file():
            raise UserError(f"{path}: there is no journal here")
        mode = "rwc"
        if read_only:
            # SQLite reads a file in WAL mode on a read-only disk only if told that none writes it.
            mode = "ro" if os.access(path.parent, os.W_OK) else "ro&immutable=1"
        try:
            # Autocommit: every statement is a transaction of its own.
            self._connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode={mode}",
                uri=True,
                timeout=timeout,
                isolation_level=None,
                check_same_thread=False,
            )
        except sqlite3.Error as error:
            raise self._error(error) from error
        # A damaged text is one bad record, not an error of the statement that meets it.
        self._connection.text_factory = lambda data: data.decode("utf-8", errors="replace")
        try:
            self._prepare(read_only)
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self, read_only: bool) -> None:
        application = self._number("PRAGMA application_id")
        tables = self._number("SELECT COUNT(*) FROM sqlite_master")
        if application != APPLICATION_ID and (tables or read_only):
            raise UserError(f"{self.path}: not a journal of palestra; choose another folder")
        found = self._number("PRAGMA user_version")
        if found > FORMAT:
            raise UserError(
                f"{self.path}: written by a newer palestra (format {found}, this one reads up to"
                f" {FORMAT}); install the newer version"
            )
        if read_only:
            return
        self._rows("PRAGMA journal_mode = WAL")
        self._rows("PRAGMA synchronous = FULL")
        if application != APPLICATION_ID:
            self._create()
        self._run(f"BEGIN IMMEDIATE; {JUDGEMENTS} COMMIT;")

    def _create(self) -> None:
        # One transaction: a kill leaves an empty file or a complete journal.
        script = (
            f"BEGIN IMMEDIATE; PRAGMA application_id = {APPLICATION_ID};"
            f" PRAGMA user_version = {FORMAT}; {SCHEMA} COMMIT;"
        )
        self._run(script)

    def _run(self, script: str) -> None:
        try:
            self._connection.executescript(script)
        except sqlite3.Error as error:
            raise self._error(error) from error

    def add_trajectory(self, trajectory: Trajectory) -> None:
        """Store a finished episode; a second one with the same id changes nothing."""
        t = trajectory
        self._rows(
            "INSERT OR IGNORE INTO trajectories VALUES (?, ?, ?, ?, ?, ?)",
            (t.id, t.step, t.group_id, t.task_id, dump(t), time.time()),
        )

    def put_trajectory(self, trajectory: Trajectory) -> None:
        """Store what became of an episode, in place of what was known of it before."""
        t = trajectory
        self._rows(
            "INSERT INTO trajectories VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET json = excluded.json",
            (t.id, t.step, t.group_id, t.task_id, dump(t), time.time()),
        )

    def trajectories(self, step: int) -> list[Trajectory]:
        """The training episodes of a step, in the order of their ids."""
        rows = self._rows("SELECT json FROM trajectories WHERE step = ? ORDER BY id", (step,))
        return [self._load(text, Trajectory) for (text,) in rows]

    def group(self, group_id: str) -> list[Trajectory]:
        """The training episodes of a group, in the order of their ids."""
        sql = "SELECT json FROM trajectories WHERE group_id = ? ORDER BY id"
        return [self._load(text, Trajectory) for (text,) in self._rows(sql, (group_id,))]

    def trajectory(self, trajectory_id: str) -> Trajectory | None:
        """The training episode with this id, if it is here."""
        rows = self._rows("SELECT json FROM trajectories WHERE id = ?", (trajectory_id,))
        return self._load(rows[0][0], Trajectory) if rows else None

    def groups(self, step: int | None = None) -> list[GroupRow]:
        """The groups of one step, or of all, in the order of steps and ids."""
        sql = (
            "SELECT id, step, task_id, size FROM groups WHERE step = COALESCE(?, step)"
            " ORDER BY step, id"
        )
        rows = self._rows(sql, (step,))
        return [GroupRow(id=r[0], step=r[1], task_id=r[2], size=r[3]) for r in rows]

    def count_groups(self, *, before: int) -> int:
        """Training groups of the steps from 1 to the one before ``before``."""
        sql = "SELECT COUNT(DISTINCT group_id) FROM trajectories WHERE step > 0 AND step < ?"
        count: int = self._rows(sql, (before,))[0][0]
        return count

    def add_shaped(self, step: int, groups: Sequence[Group]) -> None:
        """Store the rewards that shaping has changed in a step; trajectories hold the raw ones. A
        second call replaces them."""
        rewards = {
            t.id: {"total": t.reward.total, "parts": t.reward.parts, "shaping": t.reward.shaping}
            for group in groups
            for t in group.trajectories
            if t.reward is not None and t.reward.shaping
        }
        self.set_meta(f"shaped/{step}", rewards)

    def shaped(self, step: int) -> dict[str, Reward]:
        """What ``add_shaped`` stored, by trajectory id."""
        stored: Any = self.get_meta(f"shaped/{step}", {})
        return {name: Reward(**reward) for name, reward in stored.items()}

    def finish_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Say that a step is done; a second call replaces its metrics."""
        text = json.dumps({name: float(value) for name, value in metrics.items()})
        self._rows("INSERT OR REPLACE INTO steps VALUES (?, ?, ?)", (step, text, time.time()))

    def steps(self) -> list[tuple[int, dict[str, float]]]:
        """Every finished step with its metrics, in order."""
        rows = self._rows("SELECT step, metrics FROM steps ORDER BY step")
        return [(step, json.loads(text)) for step, text in rows]

    def last_metric(self, name: str, *, before: int) -> float | None:
        """A metric as the last finished step before ``before`` that has it says; None without."""
        # The text is searched, as SQLite cannot read the JSON of metrics that are NaN.
        rows = self._rows(
            "SELECT metrics FROM steps WHERE step < ? AND instr(metrics, ?) > 0"
            " ORDER BY step DESC LIMIT 1",
            (before, f"{json.dumps(name)}: "),
        )
        value: float | None = json.loads(rows[0][0])[name] if rows else None
        return value

    def finish_times(self) -> dict[int, float]:
        """When each step was finished, in seconds since the epoch."""
        return dict(self._rows("SELECT step, finished FROM steps"))

    def last_step(self) -> int | None:
        """The last finished step; None before the first."""
        rows = self._rows("SELECT MAX(step) FROM steps")
        value: int | None = rows[0][0]
        return value

    def add_eval(self, row: EvalRow, trajectory: Trajectory | None = None) -> None:
        """Store an evaluated episode; the first record of a sample stays."""
        text = None if trajectory is None else dump(trajectory)
        self._rows(
            "INSERT OR IGNORE INTO evals VALUES (?, ?, ?, ?, ?, ?)",
            (row.step, row.split, row.task_id, row.sample, int(row.solved), text),
        )

    def evals(self, step: int | None = None, split: str | None = None) -> list[EvalRow]:
        """Evaluated episodes, of one step or split when given, in a stable order."""
        sql = (
            "SELECT step, split, task_id, sample, solved FROM evals WHERE step = COALESCE(?, step)"
            " AND split = COALESCE(?, split) ORDER BY step, split, task_id, sample"
        )
        return [
            EvalRow(step=r[0], split=r[1], task_id=r[2], sample=r[3], solved=bool(r[4]))
            for r in self._rows(sql, (step, split))
        ]

    def eval_trajectories(self, step: int, split: str) -> list[Trajectory]:
        """The stored episodes of one evaluation, by task and sample."""
        sql = (
            "SELECT trajectory FROM evals WHERE step = ? AND split = ? AND trajectory IS NOT NULL"
            " ORDER BY task_id, sample"
        )
        return [self._load(text, Trajectory) for (text,) in self._rows(sql, (step, split))]

    def add_judgement(self, judgement: Judgement) -> None:
        """Store what a judge said; a second one with the same key changes nothing."""
        j = judgement
        self._rows(
            "INSERT OR IGNORE INTO judgements VALUES (?, ?, ?, ?)",
            (j.key, j.step, j.group_id, dump(j)),
        )

    def judgement(self, key: str) -> Judgement | None:
        """The judgement with this key, if it is here."""
        rows = self._rows("SELECT json FROM judgements WHERE key = ?", (key,))
        return self._load(rows[0][0], Judgement) if rows else None

    def judgements(self, group_id: str) -> list[Judgement]:
        """What was asked about a group, in the order of asking."""
        if not self._rows("SELECT 1 FROM sqlite_master WHERE name = 'judgements'"):
            return []
        sql = "SELECT json FROM judgements WHERE group_id = ? ORDER BY rowid"
        return [self._load(text, Judgement) for (text,) in self._rows(sql, (group_id,))]

    def judgements_in(self, step: int) -> list[Judgement]:
        """What was asked in a step, in the order of asking."""
        sql = "SELECT json FROM judgements WHERE step = ? ORDER BY rowid"
        return [self._load(text, Judgement) for (text,) in self._rows(sql, (step,))]

    def eval_trajectory(
        self, step: int, split: str, task_id: str, sample: int
    ) -> Trajectory | None:
        """One stored episode of an evaluation, if it is here."""
        sql = (
            "SELECT trajectory FROM evals WHERE step = ? AND split = ? AND task_id = ?"
            " AND sample = ? AND trajectory IS NOT NULL"
        )
        rows = self._rows(sql, (step, split, task_id, sample))
        return self._load(rows[0][0], Trajectory) if rows else None

    def recorded(self, after: int, limit: int) -> list[Recorded]:
        """The next training episodes in the order of recording, from position ``after`` on."""
        sql = "SELECT rowid, id, '', json FROM trajectories WHERE rowid > ? ORDER BY rowid LIMIT ?"
        return [self._recorded(*row) for row in self._rows(sql, (after, limit))]

    def recorded_evals(self, after: int, limit: int) -> list[Recorded]:
        """The same for evaluated episodes, whose ids are ``eval/SPLIT/TASK/SAMPLE@STEP``."""
        sql = (
            "SELECT rowid, 'eval/' || split || '/' || task_id || '/' || sample || '@' || step,"
            " split, trajectory FROM evals WHERE rowid > ? ORDER BY rowid LIMIT ?"
        )
        return [self._recorded(*row) for row in self._rows(sql, (after, limit))]

    def counts(self) -> tuple[int, int]:
        """The last positions of training and of evaluated episodes: how many there are."""
        rows = self._rows("SELECT (SELECT MAX(rowid) FROM trajectories), MAX(rowid) FROM evals")
        return (rows[0][0] or 0, rows[0][1] or 0)

    def set_meta(self, key: str, value: Json) -> None:
        """Store a JSON value under a key."""
        self._rows("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value)))

    def get_meta(self, key: str, default: Json = None) -> Json:
        """The JSON value stored under a key."""
        rows = self._rows("SELECT value FROM meta WHERE key = ?", (key,))
        value: Json = json.loads(rows[0][0]) if rows else default
        return value

    def close(self) -> None:
        """Let go of the file; safe to call twice."""
        self._connection.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _rows(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise self._error(error) from error

    def _number(self, sql: str) -> int:
        value: int = self._rows(sql)[0][0]
        return value

    def _recorded(self, position: int, name: str, split: str, text: str | None) -> Recorded:
        try:
            trajectory = None if text is None else self._load(text, Trajectory)
        except UserError:
            trajectory = None
        return Recorded(position=position, id=name, split=split, trajectory=trajectory)

    def _load(self, text: str, kind: type[T]) -> T:
        try:
            return load(text, kind)
        except ValueError as error:
            raise self._error(error) from error

    def _error(self, error: Exception) -> UserError:
        reason = str(error).partition("\n")[0]
        advice = "put a copy in its place or choose another folder with --run"
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            advice = "make room and run the same command again"
        return UserError(f"{self.path}: the journal cannot be used ({reason}); {advice}")
