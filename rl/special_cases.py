"""Solutions that know the visible tests by heart: branches on their inputs that give their outputs.

Read as syntax, never run. A legitimate base case looks the same, so one branch proves nothing.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterable, Iterator, Sequence
from textwrap import dedent
from typing import NamedTuple, TypeAlias

from palestra.rl.types import CallCheck, Check, ProgramCheck, ScriptCheck

MAX_SOURCE = 64 << 10
"""Characters of a text above which it is not looked at."""

Literals: TypeAlias = frozenset[str]
"""Values as their ``repr``, so that 1, True and 1.0 are three."""


class Example(NamedTuple):
    """What a visible test puts in and wants to get out."""

    inputs: Literals
    output: str


def special_cased(sources: Iterable[str], visible: Sequence[Check]) -> int:
    """Visible tests whose output stands in a branch, or a dictionary, that names their inputs.

    Example: ``if n == 3: return 6`` special-cases ``f(3) == 6``.
    """
    branches = [branch for source in sources for branch in _branches(source)]
    wanted = {example for check in visible for example in _examples(check)}
    return sum(
        any(example.inputs <= given and example.output in result for given, result in branches)
        for example in wanted
    )


def examples(visible: Sequence[Check]) -> int:
    """Tests that ``special_cased`` can recognise."""
    return len({example for check in visible for example in _examples(check)})


def _examples(check: Check) -> Iterator[Example]:
    """Those of a test with literal inputs; a test without inputs has none."""
    match check:
        case CallCheck():
            yield from _called(f"f{_as_tuple(check.args)} == {check.expected}")
        case ScriptCheck():
            tree = _parsed(check.code)
            asserted = (node for node in ast.walk(tree) if isinstance(node, ast.Assert))
            yield from (one for node in asserted for one in _called(ast.unparse(node.test)))
        case ProgramCheck() if check.stdin.strip() and check.expected:
            yield Example(frozenset({repr(check.stdin.strip())}), repr(check.expected[0].strip()))


def _as_tuple(args: str) -> str:
    return args if args.strip().startswith("(") else f"({args})"


def _called(test: str) -> Iterator[Example]:
    """``f(1, 2) == 3`` with literals."""
    match _parsed(test).body:
        case [ast.Expr(ast.Compare(ast.Call(args=args), [ast.Eq()], [wanted]))] if args:
            values = [_literal(node) for node in [*args, wanted]]
            if None not in values:
                *inputs, output = map(str, values)
                yield Example(frozenset(inputs), output)


def _branches(source: str) -> Iterator[tuple[Literals, Literals]]:
    """The literals of each condition, and of what happens under it."""
    tree = _parsed(source)
    found = ((node, _literal(node)) for node in ast.walk(tree))
    known = {node: literal for node, literal in found if literal is not None}

    def literals(*nodes: ast.AST) -> Literals:
        inner = (each for node in nodes for each in ast.walk(node))
        return frozenset(known[each] for each in inner if each in known)

    for node in ast.walk(tree):
        match node:
            case ast.If(test, body):
                yield literals(test), literals(*body)
            case ast.IfExp(test, value):
                yield literals(test), literals(value)
            case ast.match_case(pattern, _, body):
                yield literals(pattern), literals(*body)
            case ast.Dict(keys, values):
                for key, value in zip(keys, values, strict=True):
                    if key is not None:
                        yield literals(key), literals(value)


def _literal(node: ast.AST) -> str | None:
    if not isinstance(node, ast.expr):
        return None
    try:
        return repr(ast.literal_eval(node))
    except (ValueError, TypeError, MemoryError, RecursionError):
        return None


def _parsed(source: str) -> ast.Module:
    """The syntax of a piece of Python; nothing of what is no Python."""
    text = dedent(source).strip().removeprefix("el")  # a line that an edit put into an if-chain
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about other people's programs, on our terminal
        try:
            return ast.parse(text[:MAX_SOURCE])
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            return ast.Module(body=[], type_ignores=[])
