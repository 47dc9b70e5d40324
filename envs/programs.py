"""Correct programs with checks: the material that repair tasks are made from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from palestra.rl.types import CallCheck, Check

MAX_VISIBLE = 4


@dataclass(frozen=True, kw_only=True)
class Function:
    """One pure function and its cases as Python literals: ``(arguments tuple, expected value)``.

    Example: ``Function(name="inc", source="def inc(x):\\n    return x + 1\\n", cases=(("(1,)",
    "2"),))``
    """

    name: str
    source: str
    cases: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Program:
    """Some files that pass ``checks``; every file in ``files`` may be broken, and is graded.

    Example: ``Program(id="leap", files={"leap.py": text}, checks=unit_checks(tests),
    visible=unit_checks(tests)[:4], test_files=tests)``
    """

    id: str
    files: Mapping[str, str]
    checks: tuple[Check, ...]
    visible: tuple[Check, ...]
    test_files: Mapping[str, str] = field(default_factory=dict)


def visible_part(checks: tuple[Check, ...]) -> tuple[Check, ...]:
    """The checks that the agent may see: the first half, at least one, at most four."""
    return checks[: min(MAX_VISIBLE, max(1, len(checks) // 2))]


def program(function: Function) -> Program:
    """A function as a program of one file named after it."""
    name = function.name
    checks = tuple(
        CallCheck(id=f"{name}#{number}", module=name, function=name, args=args, expected=expected)
        for number, (args, expected) in enumerate(function.cases)
    )
    return Program(
        id=name,
        files={f"{name}.py": function.source},
        checks=checks,
        visible=visible_part(checks),
    )


def with_unique_ids(programs: Iterable[Program]) -> list[Program]:
    """The same programs; the second one called ``f`` becomes ``f-2``."""
    seen: dict[str, int] = {}
    unique = []
    for item in programs:
        count = seen[item.id] = seen.get(item.id, 0) + 1
        unique.append(item if count == 1 else replace(item, id=f"{item.id}-{count}"))
    return unique
