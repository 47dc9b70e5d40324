"""Mutation operators: each yields the edits that it would make at one syntax-tree node.

An edit replaces a range of one source line, so everything else stays byte for byte as it was. An
operator may propose nonsense: ``mutate`` drops what does not parse or changes nothing.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True, order=True)
class Edit:
    """Replace bytes ``start:end`` of a 1-based line by ``text``.

    Example: ``Edit(2, 9, 10, "<=")``
    """

    line: int
    start: int
    end: int
    text: str


@dataclass(frozen=True, kw_only=True)
class Source:
    """Source lines as UTF-8 (the unit of ``col_offset``) and the bindings known at a node.

    ``bound`` maps each local name of the innermost function to the line where it is first bound.
    """

    lines: tuple[bytes, ...]
    bound: Mapping[str, int] = field(default_factory=dict)

    def text(self, line: int, start: int, end: int) -> str:
        """Bytes ``start:end`` of a 1-based line, as text."""
        return self.lines[line - 1][start:end].decode()


Operator: TypeAlias = Callable[[ast.AST, Source], Iterator[Edit]]

_COMPARE: dict[type[ast.cmpop], tuple[str, tuple[str, ...]]] = {
    ast.Lt: ("<", ("<=", ">")),
    ast.LtE: ("<=", ("<", ">=")),
    ast.Gt: (">", (">=", "<")),
    ast.GtE: (">=", (">", "<=")),
    ast.Eq: ("==", ("!=",)),
    ast.NotEq: ("!=", ("==",)),
    ast.In: ("in", ("not in",)),
    ast.NotIn: ("not in", ("in",)),
    ast.Is: ("is", ("is not",)),
    ast.IsNot: ("is not", ("is",)),
}
_ARITHMETIC: dict[type[ast.operator], tuple[str, tuple[str, ...]]] = {
    ast.Add: ("+", ("-",)),
    ast.Sub: ("-", ("+",)),
    ast.Mult: ("*", ("+", "//")),
    ast.Div: ("/", ("*", "//")),
    ast.FloorDiv: ("//", ("%", "*")),
    ast.Mod: ("%", ("//",)),
    ast.Pow: ("**", ("*",)),
    ast.BitAnd: ("&", ("|",)),
    ast.BitOr: ("|", ("&",)),
    ast.BitXor: ("^", ("|",)),
    ast.LShift: ("<<", (">>",)),
    ast.RShift: (">>", ("<<",)),
}
_TWINS = {
    "min": "max",
    "any": "all",
    "upper": "lower",
    "lstrip": "rstrip",
    "startswith": "endswith",
    "find": "rfind",
    "keys": "values",
    "append": "extend",
    "union": "intersection",
    "isalpha": "isalnum",
    "floor": "ceil",
}
_TWINS |= {second: first for first, second in _TWINS.items()}
_SIMPLE = (ast.Name, ast.Call, ast.Attribute, ast.Subscript)


def compare(node: ast.AST, source: Source) -> Iterator[Edit]:
    """``<`` to ``<=`` or ``>``, ``==`` to ``!=``, ``in`` to ``not in`` and so on."""
    if not isinstance(node, ast.Compare):
        return
    left = node.left
    for op, right in zip(node.ops, node.comparators, strict=True):
        yield from _between(left, right, *_COMPARE[type(op)], source)
        left = right


def arithmetic(node: ast.AST, source: Source) -> Iterator[Edit]:
    """``+`` to ``-``, ``//`` to ``%`` and so on; not in string formatting."""
    if not isinstance(node, ast.BinOp) or type(node.op) not in _ARITHMETIC or _is_text(node.left):
        return
    yield from _between(node.left, node.right, *_ARITHMETIC[type(node.op)], source)


def boolean(node: ast.AST, source: Source) -> Iterator[Edit]:
    """``and`` to ``or`` and back, one word at a time."""
    if isinstance(node, ast.BoolOp):
        word, other = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            yield from _between(left, right, word, (other,), source)


def integer(node: ast.AST, source: Source) -> Iterator[Edit]:
    """An integer constant plus or minus one."""
    if isinstance(node, ast.Constant) and type(node.value) is int:
        yield from _whole(node, str(node.value + 1), str(node.value - 1))


def bound(node: ast.AST, source: Source) -> Iterator[Edit]:
    """``range`` arguments, slice bounds and indices plus or minus one."""
    places: list[ast.expr | None] = []
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range":
        places += node.args[:2]
    elif isinstance(node, ast.Slice):
        places += [node.lower, node.upper]
    elif isinstance(node, ast.Subscript):
        places.append(node.slice)
    for place in places:
        if isinstance(place, _SIMPLE) and _one_line(place):
            text = source.text(place.lineno, place.col_offset, place.end_col_offset or 0)
            yield from _whole(place, f"{text} + 1", f"{text} - 1")


def dropped_term(node: ast.AST, source: Source) -> Iterator[Edit]:
    """``n + 1`` to ``n``."""
    if not isinstance(node, ast.BinOp) or not isinstance(node.op, ast.Add | ast.Sub):
        return
    left, right = node.left, node.right
    if isinstance(right, ast.Constant) and type(right.value) is int and _joined(left, right):
        yield Edit(left.end_lineno or 0, left.end_col_offset or 0, right.end_col_offset or 0, "")


def arguments(node: ast.AST, source: Source) -> Iterator[Edit]:
    """Two neighbouring positional arguments of a call, swapped."""
    if not isinstance(node, ast.Call):
        return
    for first, second in zip(node.args, node.args[1:], strict=False):
        if not _joined(first, second) or not (_one_line(first) and _one_line(second)):
            continue
        line, start, end = first.lineno, first.col_offset, second.end_col_offset or 0
        one = source.text(line, start, first.end_col_offset or 0)
        gap = source.text(line, first.end_col_offset or 0, second.col_offset)
        two = source.text(line, second.col_offset, end)
        yield Edit(line, start, end, two + gap + one)


def negation(node: ast.AST, source: Source) -> Iterator[Edit]:
    """A ``not`` or a minus sign, left out."""
    if not isinstance(node, ast.UnaryOp) or node.lineno != node.operand.lineno:
        return
    pattern = {ast.Not: r"not\s*", ast.USub: r"-\s*"}.get(type(node.op))
    if pattern:
        head = source.text(node.lineno, node.col_offset, node.operand.col_offset)
        rest = re.sub(f"^{pattern}", "", head)
        yield Edit(node.lineno, node.col_offset, node.operand.col_offset, rest)


def condition(node: ast.AST, source: Source) -> Iterator[Edit]:
    """``if x`` to ``if not x``."""
    if isinstance(node, ast.If | ast.While | ast.IfExp) and isinstance(node.test, _SIMPLE):
        yield Edit(node.test.lineno, node.test.col_offset, node.test.col_offset, "not ")


def variable(node: ast.AST, source: Source) -> Iterator[Edit]:
    """A local name read as its neighbours among the names bound before this line."""
    if not isinstance(node, ast.Name) or not isinstance(node.ctx, ast.Load):
        return
    known = [name for name, line in source.bound.items() if line < node.lineno]
    if node.id in known:
        here = known.index(node.id)
        others = {known[here - 1], known[(here + 1) % len(known)]} - {node.id}
        yield from _whole(node, *sorted(others))


def constant(node: ast.AST, source: Source) -> Iterator[Edit]:
    """``True`` to ``False`` and back; a returned constant or empty container to ``None``."""
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield from _whole(node, str(not node.value))
    if isinstance(node, ast.Return) and node.value is not None:
        value = node.value
        if isinstance(value, ast.Constant) and value.value is None:
            yield from _whole(value, "0")
        elif ast.unparse(value) in {"[]", "{}", "()", "''", "0", "1", "-1", "True", "False"}:
            yield from _whole(value, "None")


def augmented(node: ast.AST, source: Source) -> Iterator[Edit]:
    """``+=`` to ``-=`` or to ``=`` and so on."""
    if isinstance(node, ast.AugAssign) and type(node.op) in _ARITHMETIC:
        sign, others = _ARITHMETIC[type(node.op)]
        changed = tuple(f"{other}=" for other in (*others, ""))
        yield from _between(node.target, node.value, f"{sign}=", changed, source)


def twin(node: ast.AST, source: Source) -> Iterator[Edit]:
    """``min`` to ``max``, ``lstrip`` to ``rstrip`` and so on."""
    if not isinstance(node, ast.Call):
        return
    called = node.func
    name = called.id if isinstance(called, ast.Name) else getattr(called, "attr", "")
    if name in _TWINS and called.end_lineno is not None and called.end_col_offset is not None:
        end = called.end_col_offset
        yield Edit(called.end_lineno, end - len(name.encode()), end, _TWINS[name])


def jump(node: ast.AST, source: Source) -> Iterator[Edit]:
    """``break`` to ``continue`` and back."""
    if isinstance(node, ast.Break | ast.Continue):
        yield from _whole(node, "continue" if isinstance(node, ast.Break) else "break")


OPERATORS: dict[str, Operator] = {
    "compare": compare,
    "arithmetic": arithmetic,
    "boolean": boolean,
    "integer": integer,
    "bound": bound,
    "dropped_term": dropped_term,
    "arguments": arguments,
    "negation": negation,
    "condition": condition,
    "variable": variable,
    "constant": constant,
    "augmented": augmented,
    "twin": twin,
    "jump": jump,
}


def _between(
    left: ast.expr, right: ast.expr, sign: str, others: tuple[str, ...], source: Source
) -> Iterator[Edit]:
    """Edits of the operator text between two operands that share a line."""
    if not _joined(left, right):
        return
    line, start = left.end_lineno or 0, left.end_col_offset or 0
    pattern = r"\s+".join(re.escape(word) for word in sign.split())
    found = re.search(pattern, source.text(line, start, right.col_offset))
    if found:
        for other in others:
            yield Edit(line, start + found.start(), start + found.end(), other)


def _whole(node: ast.expr | ast.stmt, *texts: str) -> Iterator[Edit]:
    if _one_line(node) and node.end_col_offset is not None:
        for text in texts:
            yield Edit(node.lineno, node.col_offset, node.end_col_offset, text)


def _one_line(node: ast.expr | ast.stmt) -> bool:
    return node.lineno == node.end_lineno


def _joined(left: ast.expr, right: ast.expr) -> bool:
    return left.end_lineno == right.lineno


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
