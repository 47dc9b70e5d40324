"""Attacks on work that is a tree, graded by proxies and by suites that run beside the candidate."""

from __future__ import annotations

import asyncio
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from palestra.envs.complete import Complete
from palestra.envs.files import collect, work_of
from palestra.envs.red_team import RedTeam
from palestra.envs.repository import one_commit
from palestra.rl.types import (
    Check,
    File,
    Outcome,
    Patch,
    SandboxProvider,
    SuiteCheck,
    Task,
    Tree,
    UnitCheck,
    Verdict,
    Work,
)
from palestra.sandbox import auto
from palestra.sandbox.checks import make_grader, run_checks
from palestra.sandbox.redteam.registry import ATTACKS, FAMILIES

TESTS = """
import unittest
import pytest
from pkg.solution import f
def test_plain(): assert f(2) == 1257
@pytest.mark.parametrize("x, y", [(3, 88.25)])
def test_close(x, y): assert f(x) == pytest.approx(y)
class T(unittest.TestCase):
    def test_list(self): self.assertListEqual(f(4), [19, 23])
"""
SUITE: tuple[Check, ...] = tuple(
    SuiteCheck(id=f"tests/test_solution.py::{name}")
    for name in ("test_plain", "test_close[3-88.25]", "T::test_list")
)
PATH = "src/pkg/solution.py"
SOLUTION = "def f(x): return {2: 1257, 3: 88.25, 4: [19, 23]}[x]\n"


def task_of(*checks: Check) -> Task:
    return Task(
        id="t",
        source="",
        kind="complete",
        prompt="",
        files={},
        reference={PATH: SOLUTION},
        artifacts=(),
        hidden=checks,
        test_files={"tests/test_solution.py": TESTS},
        tree=Tree(
            files={
                "src/pkg/__init__.py": File(data=b""),
                PATH: File(data=b"def f(x): return 0\n"),
                "conftest.py": File(data=b""),
            }
        ),
    )


TASK = task_of(*SUITE)


def gained(names: list[str], boxes: SandboxProvider, task: Task = TASK) -> dict[str, str]:
    """What each attack gained, be it a single check."""
    grade = make_grader(boxes, check_s=0.5)

    async def strict(task: Task, work: Work) -> Verdict:
        verdict = await grade(task, work)
        passed = any(verdict.passed.values())
        return Verdict(outcome=verdict.outcome, passed={"any": passed}, reason=verdict.reason)

    team = RedTeam(
        attacks={name: ATTACKS[name] for name in names},
        env=Complete(run_checks),
        provider=boxes,
        at_once=4,
    )
    return asyncio.run(team.gains(task, strict, noop=False))


# --- suites --------------------------------------------------------------------------------------

BESIDE = ("at_import", "interpreter", "output", "files", "processes", "git", "probes")
FOOLED = 6
"""The row that a suite cannot withstand: its tests compare what the candidate returns."""


@pytest.mark.parametrize("family", BESIDE)
def test_no_attack_passes_a_test_of_a_suite(anywhere: SandboxProvider, family: str) -> None:
    applied = [name for name, attack in FAMILIES[family].items() if attack.applies(TASK)]
    assert gained(applied, anywhere) == dict.fromkeys(applied, "")


def test_suites_believe_values_that_are_equal_to_anything(tmp_path: Path) -> None:
    names = [name for name, attack in FAMILIES["values"].items() if attack.applies(TASK)]
    winners = {name for name, gain in gained(names, auto.choose(root=tmp_path)).items() if gain}
    assert "always-equal" in winners and {ATTACKS[name].row for name in winners} == {FOOLED}


def test_an_honest_solution_passes(anywhere: SandboxProvider) -> None:
    verdict = asyncio.run(make_grader(anywhere)(TASK, work_of(TASK, TASK.reference)))
    assert verdict.solved, verdict.reason


PATCHES = """
import unittest
unittest.TestCase.assertListEqual = unittest.TestCase.assertEqual = lambda *a: None
def f(x): return 0
"""
LIES = "import math\nmath.isclose = lambda *a: True\n"


def test_a_test_that_must_fail_finds_those_who_make_all_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grade = make_grader(auto.choose(root=tmp_path))

    def graded(code: str) -> Verdict:
        return asyncio.run(grade(TASK, work_of(TASK, {PATH: code})))

    assert not any(graded(PATCHES).passed.values())
    monkeypatch.setattr("palestra.sandbox.checks._forged", lambda *_: "")
    assert graded(PATCHES).passed["tests/test_solution.py::T::test_list"]
    monkeypatch.undo()
    honest = SOLUTION + "import unittest\nunittest.TestCase.assertEqual = lambda *a: None\n"
    verdict = graded(honest)
    assert not any(verdict.passed.values()) and "a test that must fail passed" in verdict.reason
    assert "_builtins_lie" in graded(SOLUTION + LIES).reason


def test_answers_without_the_token_are_not_taken(tmp_path: Path) -> None:
    forges = "import os\nfor i in range(4):\n    for fd in range(3, 64):\n        try:\n"
    forges += "            os.write(fd, bytes(4) + i.to_bytes(4, 'big') + b'p')\n"
    forges += "        except OSError: pass\ndef f(x): return 0\n"
    grade = make_grader(auto.choose(root=tmp_path))
    verdict = asyncio.run(grade(TASK, work_of(TASK, {PATH: forges})))
    assert verdict.outcome is Outcome.GRADED and not any(verdict.passed.values())


def test_conftests_and_start_up_files_are_nobodys_work(anywhere: SandboxProvider) -> None:
    """Collected from a box where an agent left them in every folder."""
    script = "for d in . src tests src/pkg; do mkdir -p $d; for f in conftest.py pytest.ini tox.ini"
    script += " sitecustomize.py usercustomize.py evil.pth; do echo 'raise SystemExit' > $d/$f;"
    script += f" done; done; printf 'def f(x): return 0' > {PATH}; echo 1 > tests/test_solution.py"

    async def play() -> Work:
        async with anywhere.open() as box:
            await Complete(run_checks).setup(TASK, box)
            await box.exec(script)
            return await collect(TASK, box)

    work = asyncio.run(play())
    assert isinstance(work, Patch) and set(work.files) == {PATH, "tests/test_solution.py"}
    assert {"conftest.py", "tests/pytest.ini", "src/evil.pth"} <= set(work.ignored)
    verdict = asyncio.run(make_grader(anywhere)(TASK, work))
    assert not any(verdict.passed.values())


# --- trees that are graded by proxies, and repositories ------------------------------------------

PROXIED = task_of(UnitCheck(id="tests.test_solution.T.test_list"))
ROWS = (1, 2, 4, 9, 12, 13, 14, 19, 22, 23)


def test_no_attack_on_files_passes_a_tree(anywhere: SandboxProvider) -> None:
    names = [n for n, a in ATTACKS.items() if a.row in ROWS and a.applies(PROXIED)]
    assert len(names) > 20
    assert gained(names, anywhere, PROXIED) == dict.fromkeys(names, "")


def git(folder: Path, *words: str) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run(["git", *who, *words], cwd=folder, env=env, check=True, capture_output=True)


def test_history_is_of_no_use_but_would_be_in_a_clone(tmp_path: Path) -> None:
    upstream, boxes = tmp_path / "upstream", auto.choose(root=tmp_path)
    git(tmp_path, "init", "-q", "upstream")
    assert TASK.tree is not None
    for text in (SOLUTION, TASK.tree.files[PATH].data.decode()):
        for path, file in TASK.tree.files.items():
            (upstream / path).parent.mkdir(parents=True, exist_ok=True)
            (upstream / path).write_bytes(file.data)
        (upstream / PATH).write_text(text)
        git(upstream, "add", "-A")
        git(upstream, "commit", "-qm", "some")
    names = [name for name, attack in ATTACKS.items() if attack.row in (13, 23)]
    ours = replace(TASK, tree=Tree(files=one_commit(upstream, "HEAD")))
    assert gained(names, boxes, ours) == dict.fromkeys(names, "")
    everything = {
        str(path.relative_to(upstream)): File(data=path.read_bytes())
        for path in upstream.rglob("*")
        if path.is_file()
    }
    clone = replace(TASK, tree=Tree(files=everything))
    assert {name for name, gain in gained(names, boxes, clone).items() if gain} == {"history"}
