"""One-line bugs made from a correct source text by editing its syntax tree.

Owns which mutants a text has; whether a mutant is wrong is decided by running checks (``repair``).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import overload

from palestra.envs.operators import OPERATORS, Edit, Source
from palestra.envs.syntax import parse


@dataclass(frozen=True, kw_only=True)
class LineChange:
    """A line (1-based) of a source text and what an operator makes of it, without line breaks.

    Example: ``LineChange(line=2, operator="arithmetic", original_line="    return x + 1",
    mutated_line="    return x - 1")``
    """

    line: int
    operator: str
    original_line: str
    mutated_line: str


@dataclass(frozen=True, kw_only=True)
class Mutant(LineChange):
    """A changed source text and the single line that differs.

    Example: ``Mutant(source="def f(x):\\n    return x - 1\\n", line=2, operator="arithmetic",
    original_line="    return x + 1", mutated_line="    return x - 1")``
    """

    source: str


class Changes(Sequence[LineChange]):
    """What operators propose for a source text, each line once, ordered by place; nothing for a
    text that does not parse. Whether one ``alters`` the program is found out when it is asked."""

    def __init__(self, source: str) -> None:
        try:
            tree = parse(source)
        except (SyntaxError, ValueError):
            tree = ast.Module(body=[], type_ignores=[])
        self._lines = source_lines(source)
        self._spans = [(_first_line(node), node.end_lineno or 0) for node in tree.body]
        encoded = tuple(line.encode() for line in self._lines)
        found: dict[tuple[int, str], LineChange] = {}
        for edit, operator in sorted(set(_edits(tree, encoded))):
            change = _change(edit, operator, self._lines)
            found.setdefault((change.line, change.mutated_line), change)
        self._changes = list(found.values())

    def __len__(self) -> int:
        return len(self._changes)

    @overload
    def __getitem__(self, place: int) -> LineChange: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[LineChange]: ...
    def __getitem__(self, place: int | slice) -> LineChange | Sequence[LineChange]:
        return self._changes[place]

    def alters(self, change: LineChange) -> bool:
        """Whether the text still parses, and to something else: the statement of the module is
        looked at that the line is in."""
        first, last = next(span for span in self._spans if span[0] <= change.line <= span[1])
        before = self._lines[first - 1 : last]
        after = [*before]
        after[change.line - first] = _ended(change, self._lines)
        try:
            return ast.dump(parse("".join(after))) != ast.dump(parse("".join(before)))
        except (SyntaxError, ValueError):
            return False


def mutants(source: str) -> list[Mutant]:
    """Every mutant of ``source``, each text once, ordered by place.

    A text that does not parse has none.
    """
    lines = source_lines(source)
    changes = Changes(source)
    return [
        Mutant(
            source="".join(
                [*lines[: change.line - 1], _ended(change, lines), *lines[change.line :]]
            ),
            line=change.line,
            operator=change.operator,
            original_line=change.original_line,
            mutated_line=change.mutated_line,
        )
        for change in changes
        if changes.alters(change)
    ]


def combine(source: str, changes: Mapping[int, tuple[str, str]]) -> str:
    """``source`` with several lines changed: ``{line: (original, mutated)}``, 1-based.

    Raises ``ValueError`` when a line is not the original that it should be.

    Example: ``combine(source, {m.line: (m.original_line, m.mutated_line) for m in two_mutants})``
    """
    lines = source_lines(source)
    for line, (original, mutated) in changes.items():
        text = lines[line - 1]
        if text.rstrip("\r\n") != original:
            raise ValueError(f"line {line} is not {original!r}")
        lines[line - 1] = mutated + text[len(original) :]
    return "".join(lines)


def source_lines(source: str) -> list[str]:
    """Lines with their breaks, split where the Python tokenizer splits (not at form feeds)."""
    return re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", source)


def _edits(tree: ast.Module, lines: tuple[bytes, ...]) -> Iterator[tuple[Edit, str]]:
    for node, bound in _nodes(tree, {}):
        source = Source(lines=lines, bound=bound)
        for name, operator in OPERATORS.items():
            for edit in operator(node, source):
                yield edit, name


def _nodes(node: ast.AST, bound: dict[str, int]) -> Iterator[tuple[ast.AST, dict[str, int]]]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        bound = _bindings(node)
    yield node, bound
    if isinstance(node, ast.JoinedStr):
        return  # positions inside f-strings are wrong before Python 3.12
    for child in ast.iter_child_nodes(node):
        yield from _nodes(child, bound)


def _bindings(function: ast.FunctionDef | ast.AsyncFunctionDef) -> dict[str, int]:
    """Arguments and assigned names of a function, each with its first line, in text order."""
    spec = function.args
    names = [*spec.posonlyargs, *spec.args, *spec.kwonlyargs]
    found = {arg.arg: function.lineno for arg in names if arg.arg not in {"self", "cls"}}
    for name in sorted(_stored(function), key=lambda name: (name.lineno, name.col_offset)):
        found.setdefault(name.id, name.lineno)
    return found


def _stored(node: ast.AST) -> Iterator[ast.Name]:
    inner = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef, ast.comprehension)
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
            yield child
        if not isinstance(child, inner):
            yield from _stored(child)


def _first_line(node: ast.stmt) -> int:
    """That of its first decorator, where it has one."""
    decorated = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    above = node.decorator_list if isinstance(node, decorated) else []
    return min([node.lineno, *(each.lineno for each in above)])


def _change(edit: Edit, operator: str, lines: Sequence[str]) -> LineChange:
    whole = lines[edit.line - 1].encode()
    changed = (whole[: edit.start] + edit.text.encode() + whole[edit.end :]).decode()
    return LineChange(
        line=edit.line,
        operator=operator,
        original_line=lines[edit.line - 1].rstrip("\r\n"),
        mutated_line=changed.rstrip("\r\n"),
    )


def _ended(change: LineChange, lines: Sequence[str]) -> str:
    """The changed line with the line break that it had."""
    return change.mutated_line + lines[change.line - 1][len(change.original_line) :]
