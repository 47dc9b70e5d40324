"""Filters, search and pages over the index, as SQL with bound values."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from palestra.deploy.dashboard.index import NO_REWARD
from palestra.rl.types import Outcome, Stop

Sort = Literal["newest", "oldest", "reward", "-reward", "tokens", "-tokens"]

Text = Annotated[str, Field(max_length=400), AfterValidator(lambda text: text.replace("\0", ""))]
Whole = Annotated[int, Field(ge=-(2**53), le=2**53)]

ORDER: dict[Sort, tuple[str, bool]] = {
    "newest": ("key", True),
    "oldest": ("key", False),
    "reward": ("reward", False),
    "-reward": ("reward", True),
    "tokens": ("tokens", False),
    "-tokens": ("tokens", True),
}
CURSOR = re.compile(r"(-?[0-9][0-9.e+-]{0,40}),([0-9]{1,15})")
WORD = re.compile(r"\w+")
LOST_BELOW = NO_REWARD / 10
COLUMNS = (
    "key, id, split, step, group_id, task_id, environment, outcome, stop, solved, reward, tokens,"
    " turns, errors, version, seconds, parts, preview"
)


class BadFilter(ValueError):
    """A filter or cursor that means nothing; the text says why."""


class Filter(BaseModel):
    """Which episodes; every filter that is given must hold."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    split: Text | None = None
    """`train`, or the name of an evaluation's split; all without it."""
    environment: Text | None = None
    """Name of an environment."""
    task: Text | None = None
    """How the task's id begins."""
    group: Text | None = None
    """Id of a group."""
    step: Whole | None = None
    """This step only."""
    outcome: Outcome | None = None
    """What the episode is worth to training."""
    stop: Stop | None = None
    """Why it ended."""
    solved: bool | None = None
    """Did every hidden check pass?"""
    reward_min: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """Smallest reward; leaves out episodes without one."""
    reward_max: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """Largest reward; leaves out episodes without one."""
    errors: bool | None = None
    """With, or without, replies that held no valid call."""
    q: Text | None = None
    """Words that all occur in the episode; the last may be the beginning of a word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """A condition in SQL with its values."""

    sql: str
    values: tuple[Any, ...]


def where(chosen: Filter) -> Where:
    """The condition of a filter on the table ``episodes``."""
    tests: dict[str, Any] = {
        "split = ?": "" if chosen.split == "train" else chosen.split,
        "environment = ?": chosen.environment,
        "step = ?": chosen.step,
        "group_id = ?": chosen.group,
        "instr(task_id, ?) = 1": chosen.task,
        "outcome = ?": chosen.outcome and chosen.outcome.value,
        "stop = ?": chosen.stop and chosen.stop.value,
        "solved = ?": chosen.solved,
        f"reward > {LOST_BELOW} AND reward >= ?": chosen.reward_min,
        f"reward > {LOST_BELOW} AND reward <= ?": chosen.reward_max,
        "(errors > 0) = ?": chosen.errors,
        "key IN (SELECT rowid FROM words WHERE words MATCH ?)": match_of(chosen.q or "") or None,
    }
    given = {sql: value for sql, value in tests.items() if value is not None}
    return Where(sql=" AND ".join(given) or "1", values=tuple(given.values()))


def match_of(text: str) -> str:
    """An FTS5 query that finds all words of a text; nothing in it is an operator.

    Example: ``match_of('off-by one"') == '"off" "by" "one" *'``
    """
    words = WORD.findall(text)
    return " ".join(f'"{word}"' for word in words) + " *" if words else ""


def page(
    connection: sqlite3.Connection, chosen: Filter, sort: Sort, cursor: str, limit: int
) -> tuple[list[tuple[Any, ...]], str]:
    """Rows of ``COLUMNS`` after a cursor, and the cursor of the next page, empty on the last."""
    column, down = ORDER[sort]
    condition = where(chosen)
    sql, values = condition.sql, list(condition.values)
    sign, way = ("<", "DESC") if down else (">", "ASC")
    if cursor:
        found = CURSOR.fullmatch(cursor)
        if not found:
            raise BadFilter("cursor: take it from the page before")
        sql += f" AND ({column}, key) {sign} (?, ?)"
        values += [_finite(found[1]), int(found[2])]
    rows = connection.execute(
        f"SELECT {COLUMNS} FROM episodes WHERE {sql} ORDER BY {column} {way}, key {way} LIMIT ?",
        (*values, limit + 1),
    ).fetchall()
    more = len(rows) > limit
    rows = rows[:limit]
    place = [name.strip() for name in COLUMNS.split(",")].index(column)
    return rows, f"{rows[-1][place]!r},{rows[-1][0]}" if more else ""


def count(connection: sqlite3.Connection, chosen: Filter) -> int:
    """How many episodes match."""
    condition = where(chosen)
    sql = f"SELECT COUNT(*) FROM episodes WHERE {condition.sql}"
    number: int = connection.execute(sql, condition.values).fetchone()[0]
    return number


def neighbours(
    connection: sqlite3.Connection, name: str, chosen: Filter
) -> tuple[str, str, str, str]:
    """Ids of the episodes before and after one among those that match, in the order of recording:
    previous, next, previous that failed, next that failed. Empty where there is none."""
    found = connection.execute("SELECT key FROM episodes WHERE id = ?", (name,)).fetchone()
    if found is None:
        return ("", "", "", "")
    failed = chosen.model_copy(update={"solved": False})

    def nearest(among: Filter, sign: str, way: str) -> str:
        condition = where(among)
        row = connection.execute(
            f"SELECT id FROM episodes WHERE {condition.sql} AND key {sign} ?"
            f" ORDER BY key {way} LIMIT 1",
            (*condition.values, found[0]),
        ).fetchone()
        return row[0] if row else ""

    return (
        nearest(chosen, "<", "DESC"),
        nearest(chosen, ">", "ASC"),
        nearest(failed, "<", "DESC"),
        nearest(failed, ">", "ASC"),
    )


def rows_of_groups(
    connection: sqlite3.Connection, step: int, split: str = ""
) -> list[tuple[Any, ...]]:
    """Rows of ``COLUMNS`` of a step, by group and in the order of ids."""
    sql = f"SELECT {COLUMNS} FROM episodes WHERE split = ? AND step = ? ORDER BY group_id, id"
    return connection.execute(sql, (split, step)).fetchall()


def facets(connection: sqlite3.Connection) -> Sequence[tuple[Any, ...]]:
    """Counts by split, environment, outcome, stop and solved."""
    sql = (
        "SELECT split, environment, outcome, stop, solved, COUNT(*) FROM episodes"
        " GROUP BY split, environment, outcome, stop, solved"
    )
    return connection.execute(sql).fetchall()


def _finite(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise BadFilter("cursor: take it from the page before") from error


def steps_of(connection: sqlite3.Connection, limit: int) -> list[int]:
    """The last steps of training that have episodes, in order."""
    sql = "SELECT DISTINCT step FROM episodes WHERE split = '' ORDER BY step DESC LIMIT ?"
    return sorted(step for (step,) in connection.execute(sql, (limit,)))
