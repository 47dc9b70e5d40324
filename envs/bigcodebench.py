"""BigCodeBench records: a function, and a ``unittest`` class that knows its module from inside."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping

from palestra.envs.complete import SOLUTION, Complete
from palestra.envs.records import identity
from palestra.envs.rows import BadRow, json_field, text_field
from palestra.envs.syntax import parse
from palestra.envs.unit_tests import unit_checks
from palestra.rl.types import Check, Json, SuiteCheck, Task

TESTS = "test_solution.py"
CHECK_S = 10.0
"""Seconds for one test (our default): some of them read files and draw."""

_SHARED = frozenset({"mock", "patch", "open", "os", "shutil", "tempfile", "pathlib", "Path"})


def bigcodebench_task(row: Mapping[str, Json]) -> Task:
    """A task from ``task_id, complete_prompt | instruct_prompt | content, canonical_solution, test,
    entry_point``; what it imports beside the standard library is in ``labels["needs"]``.

    Tests that only call the function run in a process of their own. Those that replace parts of it,
    share files with it or use installed packages run in its process (``SuiteCheck``), which is
    weaker. Raises ``BadRow``.
    """
    name = identity(row, "task_id", "id")
    prompt = text_field(row, "complete_prompt", "content", "prompt")
    body, test = text_field(row, "canonical_solution"), text_field(row, "test")
    labels = json_field(row, "labels")
    entry = row.get("entry_point") or (labels.get("entry_point") if isinstance(labels, dict) else 0)
    if not isinstance(entry, str) or not entry.isidentifier():
        raise BadRow("field entry_point: not a name")
    reference = prompt + body
    tests = f"from solution import *\nfrom solution import {entry}\n{test}"
    needs = sorted({f"python:{name}" for name in _packages(reference, test)})
    return Task(
        id=name,
        source=Complete.name,
        kind="complete",
        prompt=f"{_asked(row, prompt)}\nWrite it in the file {SOLUTION}.",
        files={SOLUTION: ""},
        reference={SOLUTION: reference},
        artifacts=(SOLUTION,),
        hidden=_checks(tests, shared=bool(needs) or bool(_names(test) & _SHARED)),
        test_files={TESTS: tests},
        labels={"entry_point": entry, "code_prompt": prompt, "needs": " ".join(needs)},
        check_s=CHECK_S,
    )


def _asked(row: Mapping[str, Json], prompt: str) -> str:
    return text_field(row, "instruct_prompt") if row.get("instruct_prompt") else prompt


def _checks(tests: str, *, shared: bool) -> tuple[Check, ...]:
    found = unit_checks({TESTS: tests})
    if not found:
        raise BadRow("field test: no unittest methods")
    if not shared:
        return found
    parts = (check.id.split(".") for check in found)
    return tuple(SuiteCheck(id=f"{TESTS}::{case}::{method}") for _, case, method in parts)


def _packages(*texts: str) -> Iterator[str]:
    """Top-level packages outside of the standard library that a program imports."""
    for node in (node for text in texts for node in ast.walk(_parsed(text))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        for name in names:
            if name.split(".")[0] not in sys.stdlib_module_names:
                yield name.split(".")[0]


def _names(text: str) -> set[str]:
    nodes = list(ast.walk(_parsed(text)))
    found = {node.id for node in nodes if isinstance(node, ast.Name)}
    return found | {node.attr for node in nodes if isinstance(node, ast.Attribute)}


def _parsed(text: str) -> ast.Module:
    try:
        return parse(text)
    except (SyntaxError, ValueError) as error:
        raise BadRow("field test or canonical_solution: does not parse") from error
