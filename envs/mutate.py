"""One-line bugs made from a correct source text by editing its syntax tree.

Owns which mutants a text has; whether a mutant is wrong is decided by running checks (``repair``).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from palestra.envs.operators import OPERATORS, Edit, Source
from palestra.envs.syntax import parse


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """A changed source text and the single line (1-based) that differs.

    Lines are without their line break.

    Example: ``Mutant(source="def f(x):\\n    return x - 1\\n", line=2, operator="arithmetic",
    original_line="    return x + 1", mutated_line="    return x - 1")``
    """

    source: str
    line: int
    operator: str
    original_line: str
    mutated_line: str


def mutants(source: str) -> list[Mutant]:
    """Every mutant of ``source``, each text once, ordered by place.

    A text that does not parse has none.
    """
    try:
        tree = parse(source)
    except (SyntaxError, ValueError):
        return []
    before = ast.dump(tree)
    lines = source_lines(source)
    encoded = tuple(line.encode() for line in lines)
    found: dict[str, Mutant] = {}
    for edit, operator in sorted(set(_edits(tree, encoded))):
        mutant = _apply(edit, operator, lines)
        if mutant.source not in found and _differs(mutant.source, before):
            found[mutant.source] = mutant
    return list(found.values())


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


def _apply(edit: Edit, operator: str, lines: Sequence[str]) -> Mutant:
    whole = lines[edit.line - 1].encode()
    changed = (whole[: edit.start] + edit.text.encode() + whole[edit.end :]).decode()
    parts = [*lines[: edit.line - 1], changed, *lines[edit.line :]]
    return Mutant(
        source="".join(parts),
        line=edit.line,
        operator=operator,
        original_line=lines[edit.line - 1].rstrip("\r\n"),
        mutated_line=changed.rstrip("\r\n"),
    )


def _differs(source: str, before: str) -> bool:
    try:
        return ast.dump(parse(source)) != before
    except (SyntaxError, ValueError):
        return False
