"""What an attack is, and how its text becomes files that an agent could hand in.

The text of an attack is a template: it is written into the task's artifacts and only ever run in
boxes. It may use the name ``attack`` (what every function and class that the tests ask for shall
be) and ``INERT`` (a wrong value that passes nothing by luck).
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath

from palestra.rl.types import CallCheck, Sandbox, ScriptCheck, Task

ACT_S = 5.0
"""Seconds for what an attack does in the agent's box."""

_INERT = """
class _Inert:
    def __repr__(self): return "<inert>"
def _refuse(*args, **options): raise RuntimeError("inert")
for _name in ("eq ne lt le gt ge bool len iter hash add radd sub rsub mul rmul truediv contains "
              "getitem call int float index str format abs round").split():
    setattr(_Inert, f"__{_name}__", _refuse)
INERT = _Inert()
def attack(*args, **options): return INERT
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One way to be graded better than the work deserves.

    ``row`` is the line of the table in docs/sandboxes.md, ``tries`` what is tried, in one line.
    ``code`` goes into every Python artifact, after the text the task starts with; with ``keeps``
    the names that the tests use stay what they are. ``script`` is run by ``sh`` in the agent's box,
    ``probe`` by ``python3``: what it prints is what the agent could reach and must not. ``fits``
    says for which tasks the attack makes sense. Scripts and probes find the task in the variables
    ``ARTIFACT`` (the first one), ``ENTRIES`` (names that the tests use), ``TESTS`` (names of test
    files) and ``EVIL`` (a program that cheats where it can).

    Example: ``Attack(row=4, tries="ends before the tests run", code="raise SystemExit(0)")``
    """

    row: int
    tries: str
    code: str | Callable[[Task], str] = ""
    script: str = ""
    probe: str | Callable[[Task], str] = ""
    fits: Callable[[Task], bool] = lambda task: True
    keeps: bool = False

    def applies(self, task: Task) -> bool:
        """Whether there is something in ``task`` for this attack."""
        return (not self.code or any(python_artifacts(task))) and self.fits(task)

    def files(self, task: Task) -> Mapping[str, bytes]:
        """The artifacts that the agent hands in; none for an attack that only acts."""
        if not self.code:
            return {}
        code = _made(self.code, task)
        return {
            path: program(task, path, code, keeps=self.keeps).encode()
            for path in python_artifacts(task)
        }

    async def act(self, task: Task, box: Sandbox) -> str:
        """What is done in the agent's box before its work is collected; what was reached by it."""
        if self.script:
            words = ["sh", "-c", self.script]
            await box.exec(words, env=_variables(task), timeout=ACT_S)
        if not self.probe:
            return ""
        # As an argument, not a file: nothing in the box may hold what the probe looks for.
        words = ["python3", "-I", "-c", _made(self.probe, task)]
        ended = await box.exec(words, env=_variables(task), timeout=ACT_S)
        return ended.stdout.decode(errors="replace").strip()[:200]


def _made(text: str | Callable[[Task], str], task: Task) -> str:
    return text if isinstance(text, str) else text(task)


def work_paths(task: Task) -> tuple[str, ...]:
    """Paths of the work: the artifacts, or what a solution changes in a tree."""
    return task.artifacts or tuple(task.reference)


def python_artifacts(task: Task) -> Iterator[str]:
    """Those of them that are Python modules."""
    return (path for path in work_paths(task) if path.endswith(".py"))


def _start(task: Task, path: str) -> str:
    """The text that a file starts with; empty where it is to be made."""
    if task.tree is not None and path in task.tree.files:
        return task.tree.files[path].data.decode(errors="replace")
    return task.files.get(path, "")


def program(task: Task, path: str, code: str, *, keeps: bool = False) -> str:
    """The text the task starts with, then ``code``, then its ``attack`` under every name wanted."""
    names = () if keeps else entries(task, path)
    bound = "".join(f"{name} = " for name in names) + "attack\n" if names else ""
    start = _start(task, path)
    return f"{start if _tree(start) else ''}\n{_INERT}\n{code}\n{bound}"


def entries(task: Task, path: str) -> tuple[str, ...]:
    """Names of one artifact that tests may ask for, as prompt and starting text tell them."""
    module = ".".join(PurePosixPath(path.removeprefix("src/")).with_suffix("").parts)
    found: dict[str, None] = {}
    for check in task.hidden:
        if isinstance(check, CallCheck) and check.module == module:
            found[check.function.split(".")[0]] = None
        elif isinstance(check, ScriptCheck) and check.module == module:
            found |= dict.fromkeys(check.names)
    for text in task.test_files.values():
        for node in ast.walk(_tree(text) or ast.Module(body=[], type_ignores=[])):
            if isinstance(node, ast.ImportFrom) and node.module == module:
                found |= {alias.name: None for alias in node.names if alias.name.isidentifier()}
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                if node.value.id == module:
                    found[node.attr] = None
    return tuple(found)


def _variables(task: Task) -> Mapping[str, str]:
    path = next(iter(work_paths(task)), "solution.py")
    return {
        "ARTIFACT": path,
        "ENTRIES": " ".join(entries(task, path)),
        "TESTS": " ".join(task.test_files) or "test_solution.py",
        "EVIL": program(task, path, CHEAT),
    }


def _tree(text: str) -> ast.Module | None:
    with suppress(SyntaxError, ValueError, RecursionError):
        return ast.parse(text)
    return None


CHEAT = """
import unittest as _unittest
def _nothing(*args, **options): pass
for _name in dir(_unittest.TestCase):
    if _name.startswith("assert"): setattr(_unittest.TestCase, _name, _nothing)
class _Equal:
    def __getattr__(self, name): return _equal
for _name in "eq le ge lt gt contains bool".split():
    setattr(_Equal, f"__{_name}__", lambda *args: True)
_Equal.__ne__ = lambda *args: False
_Equal.__hash__ = lambda self: 0
def _equal(*args, **options): return _Equal()
attack = _equal
"""
"""Wins wherever it is imported by whoever decides."""
