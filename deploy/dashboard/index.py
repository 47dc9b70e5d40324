"""What the dashboard lists and searches: one row per episode, in a cache file of its own.

A journal holds episodes as JSON and may be far larger than memory. Each is read once, in the order
of recording, and what is listed of it is kept here with an index of its words. Nothing of it is
truth: the file can be removed at any time.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from palestra.rl.journal import Journal, Recorded
from palestra.rl.types import Trajectory

FORMAT = 2
BATCH = 64
"""Episodes per transaction."""
WORDS = 16_000
"""Characters of an episode that are searched: three quarters from its start, the rest its end."""
PREVIEW = 160
NO_REWARD = -1e300
"""Stands for the missing reward of a lost episode where episodes are sorted."""

SCHEMA = f"""
CREATE TABLE about (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE episodes (
    key INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, split TEXT NOT NULL, step INTEGER NOT NULL,
    group_id TEXT NOT NULL, task_id TEXT NOT NULL, environment TEXT NOT NULL,
    outcome TEXT NOT NULL, stop TEXT NOT NULL, solved INTEGER NOT NULL, reward REAL NOT NULL,
    tokens INTEGER NOT NULL, turns INTEGER NOT NULL, errors INTEGER NOT NULL,
    version INTEGER NOT NULL, seconds REAL NOT NULL, parts TEXT NOT NULL, preview TEXT NOT NULL);
CREATE INDEX by_reward ON episodes (reward, key);
CREATE INDEX by_tokens ON episodes (tokens, key);
CREATE INDEX by_step ON episodes (split, step, key);
CREATE INDEX by_group ON episodes (group_id, step, key);
CREATE INDEX by_outcome ON episodes (split, environment, outcome, stop, solved, key);
CREATE VIRTUAL TABLE words USING fts5 (text, content='');
PRAGMA user_version = {FORMAT};
"""


class EpisodeIndex:
    """The index of one run; ``update`` it from the journal, ask it through ``connect``.

    Example: ``EpisodeIndex(cache, Path("runs/tiny"), "repair").update(journal)``
    """

    def __init__(self, cache: Path, run: Path, environment: str) -> None:
        name = hashlib.sha256(str(run).encode()).hexdigest()[:24]
        self.path = cache / f"{name}.sqlite"
        self.environment = environment

    def connect(self) -> sqlite3.Connection:
        """A connection in autocommit mode; the caller closes it."""
        connection = sqlite3.connect(self.path, timeout=5.0, isolation_level=None)
        connection.execute("PRAGMA synchronous = OFF")  # a torn cache is made again
        return connection

    def prepare(self, journal: Journal) -> None:
        """Make the file, or make it anew where it is another journal's, another version's, or torn.

        A journal that was replaced by one of the same path has another first episode, or fewer.
        """
        first = "/".join(record.id for record in journal.recorded(0, 1))
        try:
            with closing(self.connect()) as connection:
                if self._fits(connection, first, journal.counts()):
                    return
        except sqlite3.DatabaseError:
            pass
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        with closing(self.connect()) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(f"BEGIN; {SCHEMA} COMMIT;")
            _set(connection, first=first)

    def _fits(self, connection: sqlite3.Connection, first: str, counts: tuple[int, int]) -> bool:
        if connection.execute("PRAGMA user_version").fetchone()[0] != FORMAT:
            return False
        known = _get(connection, "first", "")
        if known != first and known:
            return False
        _set(connection, first=first)
        done = (_get(connection, "trained", 0), _get(connection, "evaluated", 0))
        return all(have <= there for have, there in zip(done, counts, strict=True))

    def update(self, journal: Journal) -> bool:
        """Take up the next episodes; False when there are none."""
        with closing(self.connect()) as connection:
            trained = _get(connection, "trained", 0)
            evaluated = _get(connection, "evaluated", 0)
            new = journal.recorded(trained, BATCH)
            evals = journal.recorded_evals(evaluated, BATCH)
            if not new and not evals:
                return False
            connection.execute("BEGIN IMMEDIATE")
            try:
                # Another dashboard may have been faster; then its work stands.
                if (trained, evaluated) == (
                    _get(connection, "trained", 0),
                    _get(connection, "evaluated", 0),
                ):
                    for record in (*new, *evals):
                        self._add(connection, record)
                    _set(
                        connection,
                        trained=new[-1].position if new else trained,
                        evaluated=evals[-1].position if evals else evaluated,
                    )
                connection.execute("COMMIT")
            except BaseException:
                connection.execute("ROLLBACK")
                raise
        return True

    def _add(self, connection: sqlite3.Connection, record: Recorded) -> None:
        if record.trajectory is None:
            return
        row = _row(record, self.environment)
        marks = ", ".join("?" * len(row))
        names = ", ".join(row)
        added = connection.execute(
            f"INSERT OR IGNORE INTO episodes ({names}) VALUES ({marks})", list(row.values())
        )
        if added.rowcount:
            connection.execute(
                "INSERT INTO words (rowid, text) VALUES (?, ?)",
                (added.lastrowid, searched(record.trajectory)),
            )

    def done(self) -> int:
        """Positions of the journal that have been taken up."""
        try:
            with closing(self.connect()) as connection:
                trained: int = _get(connection, "trained", 0)
                evaluated: int = _get(connection, "evaluated", 0)
        except sqlite3.DatabaseError:
            return 0
        return trained + evaluated


def environment_of(task_id: str, default: str) -> str:
    """The first part of a task's id, or ``default`` for ids without parts; of a task of an adapter
    all but its number, as an address has slashes, too.

    Example: ``environment_of("repair/clamp/3", "swebench") == "repair"``
    """
    head, slash, _ = task_id.partition("/")
    if ":" in head:
        head, slash, _ = task_id.rpartition("/")
    return head if slash and head else default


def searched(trajectory: Trajectory) -> str:
    """The text of an episode that is searched: who said what, in order, long ones cut inside."""
    pieces = [trajectory.task_id, *(message.content for message in trajectory.prompt)]
    for turn in trajectory.turns:
        pieces.append(turn.message.content)
        pieces += [
            f"{c.name} {' '.join(map(str, c.arguments.values()))}" for c in turn.message.calls
        ]
        pieces += [turn.observation, turn.error]
    pieces += [trajectory.patch, trajectory.reason]
    if trajectory.verdict:
        pieces.append(trajectory.verdict.reason)
    text = "\n".join(piece for piece in pieces if piece)
    head = WORDS * 3 // 4
    return text if len(text) <= WORDS else f"{text[:head]}\n{text[head - WORDS :]}"


def _row(record: Recorded, environment: str) -> dict[str, Any]:
    t = record.trajectory
    assert t is not None
    said = (turn.message.content for turn in reversed(t.turns) if turn.message.content.strip())
    preview = t.reason or (t.verdict.reason if t.verdict else "") or next(islice(said, 1), "")
    return {
        "id": record.id,
        "split": record.split,
        "step": t.step,
        "group_id": t.group_id,
        "task_id": t.task_id,
        "environment": environment_of(t.task_id, environment),
        "outcome": t.outcome.value,
        "stop": t.stop.value,
        "solved": t.solved,
        "reward": NO_REWARD if t.reward is None else t.reward.total,
        "tokens": t.generated,
        "turns": len(t.turns),
        "errors": sum(bool(turn.error) for turn in t.turns),
        "version": min((turn.version for turn in t.turns), default=0),
        "seconds": sum(t.seconds.values()),
        "parts": json.dumps(dict(t.reward.parts) if t.reward else {}),
        "preview": " ".join(preview.split())[:PREVIEW],
    }


def _get(connection: sqlite3.Connection, name: str, default: Any) -> Any:
    row = connection.execute("SELECT value FROM about WHERE name = ?", (name,)).fetchone()
    return default if row is None else row[0]


def _set(connection: sqlite3.Connection, **values: object) -> None:
    connection.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", values.items())
