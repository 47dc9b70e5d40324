"""Tests of pytest and unittest files, found and cut out by reading them, never by running them."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from palestra.envs.syntax import parse
from palestra.envs.unit_tests import blanked
from palestra.rl.types import Check, SuiteCheck, UnitCheck

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, kw_only=True, eq=False)
class SuiteTest:
    """A test function or method. ``forms`` are the checks that it could be, the strongest first:
    which of them it is shows when they are run. ``[`` at the end stands for all its parameters.

    Example: ``SuiteTest(path="tests/test_a.py", node=node, forms=(SuiteCheck(id=
    "tests/test_a.py::test_x"), SuiteCheck(id="tests/test_a.py::test_x[")))``
    """

    path: str
    node: Function
    forms: tuple[Check, ...]


def is_test_path(path: str) -> bool:
    """Whether a file belongs to the tests of a package, by its name or a folder that it is in."""
    *folders, name = path.split("/")
    named = name.startswith("test_") or name.endswith("_test.py") or name == "conftest.py"
    return (named and name.endswith(".py")) or bool({"tests", "test"} & set(folders))


def suite_tests(test_files: Mapping[str, str]) -> tuple[SuiteTest, ...]:
    """The tests of all files, in text order; files that do not parse have none.

    Example: ``suite_tests({"test_a.py": text})[0].forms[0].id == "test_a.py::test_x"``
    """
    found: dict[str, SuiteTest] = {}
    for path, text in test_files.items():
        for test in _in_file(path, text) if path.endswith(".py") else ():
            found[test.forms[-1].id] = test
    return tuple(found.values())


def without(test_files: Mapping[str, str], tests: Iterable[SuiteTest]) -> dict[str, str]:
    """The same files with a ``pass`` in the place of ``tests``; lines stay where they were."""
    nodes: dict[str, list[Function]] = {}
    for test in tests:
        nodes.setdefault(test.path, []).append(test.node)
    return {path: blanked(text, nodes.get(path, ())) for path, text in test_files.items()}


def _in_file(path: str, text: str) -> Iterator[SuiteTest]:
    try:
        tree = parse(text)
    except (SyntaxError, ValueError):
        return
    yield from _in_body(path, (), tree.body, cases=False)


def _in_body(
    path: str, classes: tuple[str, ...], body: list[ast.stmt], *, cases: bool
) -> Iterator[SuiteTest]:
    for node in body:
        if isinstance(node, Function) and node.name.startswith("test"):
            name = "::".join([path, *classes, node.name])
            forms: tuple[Check, ...] = (SuiteCheck(id=name), SuiteCheck(id=f"{name}["))
            if cases:
                module = PurePosixPath(path).with_suffix("").parts
                unit = UnitCheck(id=".".join([*module, *classes, node.name]))
                forms = (unit, *forms)
            yield SuiteTest(path=path, node=node, forms=forms)
        elif isinstance(node, ast.ClassDef) and (node.name.startswith("Test") or node.bases):
            outer = not classes and bool(node.bases)
            yield from _in_body(path, (*classes, node.name), node.body, cases=outer)
