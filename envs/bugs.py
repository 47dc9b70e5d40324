"""Bugs to put into packages: which there are, which are tried, and what a package with one is."""

from __future__ import annotations

import ast
import hashlib
import itertools
import random
from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass

from palestra.envs.mutate import Changes, LineChange, combine
from palestra.envs.repair_demos import LineEdit
from palestra.envs.syntax import parse
from palestra.rl.types import File


@dataclass(frozen=True, kw_only=True)
class Bug:
    """Wrong lines, and the function that they are in (``path::Class.method``).

    Example: ``Bug(function="clamp.py::clamp", edits=(edit,), operator="compare")``
    """

    function: str
    edits: tuple[LineEdit, ...]
    operator: str


def bugs_in(
    sources: Mapping[str, str], *, seed: int, per_function: int, max_lines: int | None
) -> list[Bug]:
    """At most ``per_function`` bugs in each function of at most ``max_lines`` lines, and in what is
    in none; which ones the seed says. In the order of files and lines."""
    found: list[Bug] = []
    for path, text in sources.items():
        changes, functions, total = Changes(text), _functions(text), len(text.splitlines())
        groups: dict[str, list[LineChange]] = {}
        for change in changes:
            name, lines = _around(functions, change.line, total)
            if max_lines is None or lines <= max_lines:
                groups.setdefault(name, []).append(change)
        for name, group in groups.items():
            group.sort(key=lambda change: rank(seed, path, change))
            for change in itertools.islice(filter(changes.alters, group), per_function):
                edit = LineEdit(
                    path=path,
                    line=change.line,
                    original=change.original_line,
                    broken=change.mutated_line,
                )
                function = f"{path}::{name}"
                found.append(Bug(function=function, edits=(edit,), operator=change.operator))
    return sorted(found, key=lambda bug: astuple(bug.edits[0]))


def combined(pool: Sequence[Bug], count: int, seed: int) -> Iterator[Bug]:
    """Bugs of ``count`` lines, as many as ``pool`` has of one."""
    rng = random.Random(rank(seed, count, [bug.edits for bug in pool]))
    functions = {bug.edits[0]: bug.function for bug in pool}
    for parts in on_different_lines(list(functions), count, rng):
        names = sorted({functions[edit] for edit in parts})
        yield Bug(function=" ".join(names), edits=parts, operator="combined")


def on_different_lines(
    pool: Sequence[LineEdit], count: int, rng: random.Random
) -> Iterator[tuple[LineEdit, ...]]:
    """Combinations of ``count`` edits, each once and as many as the pool has members."""
    seen: set[tuple[LineEdit, ...]] = set()
    for _ in range(len(pool) * 3 if len(pool) >= count else 0):
        parts = rng.sample(pool, count)
        edits = tuple(sorted(parts, key=lambda edit: (edit.path, edit.line)))
        lines = {(edit.path, edit.line) for edit in edits}
        if edits in seen or len(lines) < count or len(seen) >= len(pool):
            continue
        seen.add(edits)
        yield edits


def broken(files: dict[str, File], edits: Sequence[LineEdit]) -> Mapping[str, File]:
    """``files`` with the wrong lines, sharing what is the same."""
    changed: dict[str, File] = {}
    for path in {edit.path for edit in edits}:
        lines = {edit.line: (edit.original, edit.broken) for edit in edits if edit.path == path}
        text = combine(files[path].data.decode(), lines)
        changed[path] = File(data=text.encode(), executable=files[path].executable)
    return ChainMap(changed, files)


def rank(*parts: object) -> str:
    """Equal for equal parts, and otherwise as good as random."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def share(*parts: object) -> float:
    """``rank`` as a number in [0, 1)."""
    return int(rank(*parts)[:8], 16) / 16**8


def _functions(text: str) -> list[tuple[int, int, str]]:
    """First and last line and the qualified name of every function, outer ones first."""

    def inside(node: ast.AST, outer: tuple[str, ...]) -> Iterator[tuple[int, int, str]]:
        for child in ast.iter_child_nodes(node):
            name = outer
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                name = (*outer, child.name)
                if not isinstance(child, ast.ClassDef):
                    yield child.lineno, child.end_lineno or child.lineno, ".".join(name)
            yield from inside(child, name)

    try:
        return list(inside(parse(text), ()))
    except (SyntaxError, ValueError):
        return []


def _around(functions: Sequence[tuple[int, int, str]], line: int, total: int) -> tuple[str, int]:
    """The innermost function of a line and how many lines it has; no name for those in none."""
    around = [(end - start + 1, name) for start, end, name in functions if start <= line <= end]
    lines, name = min(around, default=(total, ""))
    return name, lines
