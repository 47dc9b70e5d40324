"""Trees are graded as the pristine tree with the agent's patch, and the tests over both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from palestra.rl.errors import UserError
from palestra.rl.types import (
    CallCheck,
    File,
    Outcome,
    Patch,
    ScriptCheck,
    Task,
    Tree,
    UnitCheck,
    Verdict,
)
from palestra.sandbox import auto
from palestra.sandbox.checks import Runner, make_grader
from palestra.sandbox.memo import remembering_grader

TESTS = """
import unittest
from pkg.core import double
class T(unittest.TestCase):
    def test_double(self): self.assertEqual(double(21), 42)
"""
TASK = Task(
    id="t",
    source="",
    kind="complete",
    prompt="",
    files={},
    reference={},
    artifacts=(),
    hidden=(
        CallCheck(id="c", module="pkg.core", function="double", args="(2,)", expected="4"),
        ScriptCheck(id="s", module="pkg.core", names=("double",), code="assert double(3) == 6"),
        UnitCheck(id="tests.test_core.T.test_double"),
    ),
    test_files={"tests/test_core.py": TESTS},
    tree=Tree(
        files={
            "src/pkg/__init__.py": File(data=b""),
            "src/pkg/core.py": File(data=b"from pkg.data import TWO\ndef double(x): return x\n"),
            "src/pkg/data.py": File(
                data=b"from pathlib import Path\n"
                b"TWO = Path(__file__).with_name('two.bin').read_bytes()[0]\n"
            ),
            "src/pkg/two.bin": File(data=b"\2\xff"),
            "tests/test_core.py": File(data=b"raise SystemExit\n"),
        }
    ),
)
FIXED = File(data=b"from pkg.data import TWO\ndef double(x): return TWO * x\n")


@pytest.fixture
def judge(runner: Runner) -> Callable[..., object]:
    """Verdicts on patches, by fresh and by warm boxes."""
    grade = make_grader(runner)

    async def graded(*patches: Patch) -> list[Verdict]:
        return [await grade(TASK, patch) for patch in patches]

    return lambda *patches: asyncio.run(graded(*patches))


def test_a_tree_is_graded_with_its_patch(judge: Callable[..., list[Verdict]]) -> None:
    nothing, good, removed = judge(
        Patch(files={}),
        Patch(files={"src/pkg/core.py": FIXED}),
        Patch(files={"src/pkg/core.py": FIXED, "src/pkg/two.bin": None}),
    )
    assert set(nothing.passed.values()) == {False}
    assert good.solved, good.reason
    assert set(removed.passed.values()) == {False}


def test_tests_in_a_patch_are_replaced(judge: Callable[..., list[Verdict]]) -> None:
    forged = File(data=b"import unittest\nclass T(unittest.TestCase):\n def test_double(self): 0\n")
    (verdict,) = judge(Patch(files={"tests/test_core.py": forged}))
    assert set(verdict.passed.values()) == {False}


def test_a_refused_patch_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    grade = remembering_grader(make_grader(auto.choose(root=tmp_path)))

    async def both() -> tuple[Verdict, Verdict]:
        refused = await grade(TASK, Patch(files={}, refused="too large"))
        return refused, await grade(TASK, Patch(files={"src/pkg/core.py": FIXED}))

    refused, good = asyncio.run(both())
    assert (refused.outcome, refused.reason) == (Outcome.GRADED, "too large")
    assert len(refused.passed) == 3 and not refused.solved and good.solved


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a//b", "a/./b", "", "a\0b"])
def test_no_path_leads_out_of_the_tree(tmp_path: Path, path: str) -> None:
    grade = make_grader(auto.choose(root=tmp_path))
    with pytest.raises(UserError, match="plain relative path"):
        asyncio.run(grade(TASK, Patch(files={path: FIXED})))
