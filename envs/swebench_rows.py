"""Rows of SWE-bench and of the sets that share its fields: checked, and their tests as ids of ours.

``instance_id, repo, base_commit, problem_statement, patch, test_patch, FAIL_TO_PASS,
PASS_TO_PASS`` (SWE-bench, Verified, Lite, SWE-Gym, SWE-rebench), the last two a list or its JSON
text. A row without ``test_patch`` is one of SWE-smith: its ``patch`` is the bug, not the fix.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from palestra.envs.django_tests import described
from palestra.envs.rows import BadRow, text_field
from palestra.rl.types import Json

_IMAGES = ("image", "image_name", "docker_image")
_UNITTEST = re.compile(r"(\w+) \(([\w.]+)\)")
MAX_TESTS = 20_000


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One row. ``image`` and ``base_commit`` are empty where it has none; ``bug`` says that
    ``patch`` makes the tests fail instead of mending them. The tests come with ``test_patch`` or,
    as a whole, in ``test_files``; else they are those of the repository."""

    id: str
    repo: str
    base_commit: str
    image: str
    problem: str
    patch: str
    test_patch: str
    tests: tuple[str, ...]
    bug: bool
    test_files: Mapping[str, str] = field(default_factory=dict)


def instance(row: Mapping[str, Json]) -> Instance:
    """A row, checked; raises ``BadRow`` naming the field."""
    bug = not row.get("test_patch")
    failing = _tests(row, "FAIL_TO_PASS")
    if not failing:
        raise BadRow("field FAIL_TO_PASS: empty")
    return Instance(
        id=text_field(row, "instance_id"),
        repo=text_field(row, "repo"),
        base_commit="" if bug and not row.get("base_commit") else text_field(row, "base_commit"),
        image=next((text_field(row, name) for name in _IMAGES if row.get(name)), ""),
        problem=text_field(row, "problem_statement"),
        patch=_diff(row, "patch"),
        test_patch="" if bug else _diff(row, "test_patch"),
        tests=tuple(dict.fromkeys([*failing, *_tests(row, "PASS_TO_PASS")])),
        bug=bug,
    )


class Finder:
    """Finds tests as rows name them.

    ``changed`` is the text of the files that the row's tests come in: among them is looked for
    tests that are named without their file, as those of SymPy (``test_sqrt``) and of unittest:
    ``test_sqrt (maths.tests.RootTest)``, in ``others`` as well, the paths of the repository, or the
    first line of a docstring, which stands for all tests that have it.

    Example: ``Finder({"test_a.py": text}).ids("test_sqrt") == ["test_a.py::test_sqrt"]``
    """

    def __init__(self, changed: Mapping[str, str], others: Collection[str] = ()) -> None:
        self._changed = changed
        self._others = others

    def ids(self, test: str) -> Sequence[str]:
        """The ids of ``SuiteCheck``s for a test; raises ``BadRow``."""
        path, separator, name = test.partition("::")
        if separator and name and path.endswith(".py"):
            return [test]
        if found := _UNITTEST.fullmatch(test):
            name, place = found.groups()
            module, _, case = place.removesuffix(f".{name}").rpartition(".")
            paths = [path for path in self._changed if _ends_with(path, module)]
            paths = paths or [path for path in self._others if _ends_with(path, module)]
            name = f"{case}::{name}"
        elif ids := self._described.get(test.strip()):
            return ids
        else:
            define = re.compile(rf"^(async )?def {re.escape(test)}\(", re.MULTILINE)
            paths = [path for path, text in self._changed.items() if define.search(text)]
            name = test
        if len(paths) != 1:
            raise BadRow(f"field FAIL_TO_PASS or PASS_TO_PASS: {test[:80]!r} is no test of pytest")
        return [f"{paths[0]}::{name}"]

    @cached_property
    def _described(self) -> Mapping[str, Sequence[str]]:
        found: dict[str, list[str]] = {}
        for said, name in described(self._changed):
            found.setdefault(said, []).append(name)
        return found


def _ends_with(path: str, module: str) -> bool:
    return f"/{path}".endswith(f"/{module.replace('.', '/')}.py") and bool(module)


def _tests(row: Mapping[str, Json], name: str) -> list[str]:
    value = row.get(name)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise BadRow(f"field {name}: not a JSON list: {error}") from error
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise BadRow(f"field {name}: missing" if value is None else f"field {name}: not test names")
    if len(value) > MAX_TESTS:
        raise BadRow(f"field {name}: more than {MAX_TESTS} tests")
    return [str(item) for item in value]


def _diff(row: Mapping[str, Json], name: str) -> str:
    """A diff as it is: its line ends are part of it."""
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise BadRow(f"field {name}: missing" if value is None else f"field {name}: not a diff")
    return value
