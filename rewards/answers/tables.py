"""The tables that an agent's tools have changed, judged by where they ended and not by the calls.

``expected`` is JSON, the tables as they were and as they shall be:
``{"before": {"events": [{"title": "standup"}]}, "after": {"events": []}}``. The text is JSON, too;
of what it has, only these tables count. Rows are compared as a multiset, without their own ``id``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from palestra.rl.errors import TaskError
from palestra.rl.types import Json

Rows: TypeAlias = Counter[tuple[str, str]]
"""How often a table has a row, as its name and the row's JSON text."""


@dataclass(frozen=True)
class Change:
    """Rows that came, and rows that went."""

    came: Rows
    went: Rows

    def without(self, other: Change) -> list[str]:
        """What is in this change and not in the other, for people."""
        came, went = self.came - other.came, self.went - other.went
        return [
            f"{sign} {table}: {row}"
            for sign, rows in (("new", came), ("gone", went))
            for table, row in sorted(rows.elements())
        ]


async def changes_made(text: str, expected: str) -> str:
    """Right when every change that was asked for is there, whatever else was changed."""
    wanted, got = _changes(text, expected)
    if got is None:
        return "the tables cannot be read"
    missing = wanted.without(got)
    return f"not done: {missing[0]}" if missing else ""


async def nothing_else(text: str, expected: str) -> str:
    """Right when nothing was changed that was not asked for, or more often than that."""
    wanted, got = _changes(text, expected)
    if got is None:
        return "the tables cannot be read"
    unasked = got.without(wanted)
    return f"not asked for: {unasked[0]}" if unasked else ""


def _changes(text: str, expected: str) -> tuple[Change, Change | None]:
    try:
        spec = json.loads(expected)
        names = sorted(spec["after"])
        before, after = _rows(spec["before"], names), _rows(spec["after"], names)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise TaskError(f"expected has no tables before and after: {error}") from error
    try:
        got = _rows(json.loads(text), names)
    except (ValueError, TypeError, KeyError, RecursionError):
        return _change(before, after), None
    return _change(before, after), _change(before, got)


def _change(before: Rows, after: Rows) -> Change:
    return Change(came=after - before, went=before - after)


def _rows(tables: Json, names: list[str]) -> Rows:
    """Raises ``ValueError``, ``TypeError`` or ``KeyError`` for what are not tables."""
    if not isinstance(tables, Mapping):
        raise TypeError("not an object")
    return Counter((name, _content(row)) for name in names for row in tables[name])


def _content(row: Json) -> str:
    if not isinstance(row, Mapping):
        raise TypeError("a row is not an object")
    return json.dumps({key: value for key, value in row.items() if key != "id"}, sort_keys=True)
