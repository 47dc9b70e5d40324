"""Test methods of ``unittest`` files, found and cut out by reading them, never by running them."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import PurePosixPath

from palestra.envs.mutate import source_lines
from palestra.envs.syntax import parse
from palestra.rl.types import UnitCheck


def unit_checks(test_files: Mapping[str, str]) -> tuple[UnitCheck, ...]:
    """One check per test method of every test file, in text order; files that do not parse: none.
    Methods that are always skipped are left out.

    Example: ``unit_checks({"leap_test.py": text})[0].id == "leap_test.LeapTest.test_2015"``
    """
    found: dict[str, UnitCheck] = {}
    for path, text in test_files.items():
        for identity, method in _methods(path, text):
            if not any(map(_skips, method.decorator_list)):
                found.setdefault(identity, UnitCheck(id=identity))
    return tuple(found.values())


def keep_only(test_files: Mapping[str, str], ids: Collection[str]) -> dict[str, str]:
    """The same files without the test methods not in ``ids``; line numbers stay what they were."""
    return {path: _cut(path, text, ids) for path, text in test_files.items()}


def blanked(text: str, functions: Iterable[ast.FunctionDef | ast.AsyncFunctionDef]) -> str:
    """``text`` with a ``pass`` in the place of functions of it, and as many lines as before."""
    lines = source_lines(text)
    for node in sorted(functions, key=lambda node: -node.lineno):
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        blank = ["\n"] * ((node.end_lineno or first) - first)
        lines[first - 1 : node.end_lineno] = [" " * node.col_offset + "pass\n", *blank]
    return "".join(lines)


def _skips(decorator: ast.expr) -> bool:
    """``@unittest.skip("...")``"""
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return ast.unparse(called) in ("unittest.skip", "skip")


def _cut(path: str, text: str, ids: Collection[str]) -> str:
    return blanked(text, [node for name, node in _methods(path, text) if name not in ids])


def _methods(path: str, text: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    module = ".".join(PurePosixPath(path).with_suffix("").parts)
    try:
        tree = parse(text)
    except (SyntaxError, ValueError):
        return
    for node in tree.body:
        for method in node.body if isinstance(node, ast.ClassDef) else ():
            if isinstance(method, ast.FunctionDef) and method.name.startswith("test"):
                assert isinstance(node, ast.ClassDef)
                yield f"{module}.{node.name}.{method.name}", method
