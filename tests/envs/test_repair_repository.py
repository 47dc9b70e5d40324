"""Packages with their tests become tasks: bugs that their own tests find, in boxes."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from palestra.envs.check import check_tasks
from palestra.envs.files import work_of
from palestra.envs.packages import Package, packages
from palestra.envs.repair_repository import difficulty
from palestra.envs.repair_source import RepairOptions
from palestra.envs.sources import load
from palestra.envs.suite_tests import suite_tests, without
from palestra.envs.swe import SWE
from palestra.envs.taskset import Skipped, TaskSet
from palestra.rl.errors import SandboxError, UserError
from palestra.rl.types import CheckJob, CheckResult, SandboxProvider, SuiteCheck, Task, UnitCheck
from palestra.sandbox import auto
from palestra.sandbox.checks import make_grader, run_checks

CORE = """\
import tempfile
from pathlib import Path


def add(a, b):
    return a + b


def mean(numbers):
    return add(sum(numbers), 0) / len(numbers)


def steps(n):
    while n > 0:
        n -= 1
    return n


def spare(x):
    return x * 2


def kept():
    Path(tempfile.gettempdir(), "kept").touch(exist_ok=True)
    return 1
"""
SOURCE_LAYOUT = {
    "setup.py": "VERSION = 1\n",
    "src/calc/__init__.py": "from calc.core import add, kept, mean, steps\n",
    "src/calc/core.py": CORE,
    "tests/__init__.py": "",
    "tests/conftest.py": "import pytest\n@pytest.fixture\ndef numbers(): return [1, 2, 6]\n",
    "tests/helper.py": "def three(): return 3\n",
    "tests/test_core.py": """\
import tempfile
from pathlib import Path
import pytest
from calc import add, kept, mean
from tests.helper import three

@pytest.mark.parametrize(("a", "b", "c"), [(1, 2, 3), (0, 4, 4)])
def test_add(a, b, c):
    assert add(a, b) == c

def test_mean(numbers):
    assert mean(numbers) == three()

def test_kept(): assert kept() == 1

def test_once(): Path(tempfile.gettempdir(), "once").touch(exist_ok=False)

def test_wrong(): assert add(1, 1) == 3
""",
    "tests/test_steps.py": """\
import unittest
from calc import steps

class StepsTest(unittest.TestCase):
    def test_some(self): self.assertEqual(steps(3), 0)
    def test_none(self): self.assertEqual(steps(0), 0)
""",
}
FLAT = {
    "shop.py": "def price(n, each):\n    return n * each\n\n\ndef total(a, b):\n    return a + b\n",
    "test_shop.py": """\
import unittest
from shop import price, total
class T(unittest.TestCase):
    def test_price(self): self.assertEqual(price(2, 5), 10)
    def test_total(self): self.assertEqual(total(2, 3), 5)
""",
}


def laid_out(folder: Path, texts: Mapping[str, str]) -> Path:
    for path, text in texts.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> SandboxProvider:
    return auto.choose(root=tmp_path_factory.mktemp("boxes"))


def made(folder: Path, boxes: SandboxProvider, run: Any = run_checks, **more: Any) -> TaskSet:
    run = partial(run, check_s=0.5)  # bugs that do not end take so long each
    source = f"repair-repo:{folder}"
    return asyncio.run(load(source, run_checks=run, provider=boxes, seed=0, **more))


@pytest.fixture(scope="module")
def calc(tmp_path_factory: pytest.TempPathFactory, boxes: SandboxProvider) -> TaskSet:
    folder = laid_out(tmp_path_factory.mktemp("sources") / "calc", SOURCE_LAYOUT)
    return made(folder, boxes, options=RepairOptions(max_mutants=8))


def failing(task: Task) -> list[str]:
    return list(json.loads(task.labels["FAIL_TO_PASS"]))


def test_bugs_are_those_that_tests_find(calc: TaskSet) -> None:
    assert calc.env == SWE.name and calc.validated and {"train"} < set(calc.splits)
    broken = {task.labels["function"].rpartition("::")[2] for task in calc.tasks}
    assert broken == {"add", "mean", "steps", "kept"}
    left_out = {item.id: item.reason for item in calc.skipped}
    assert left_out["calc tests/test_core.py::test_once"].startswith("flaky")
    assert left_out["calc tests/test_core.py::test_wrong"].startswith(
        "fails without any bug: AssertionError"
    )
    reasons = [item.reason for item in calc.skipped if item.id == "calc"]
    assert {reason.partition(" ")[2] for reason in reasons} == {
        "bugs fail no test",
        "bugs do not end",
        "bugs make tests waver",
    }


def test_a_test_is_graded_in_its_strongest_form(calc: TaskSet) -> None:
    assert calc.tasks[0].hidden == (
        SuiteCheck(id="tests/test_core.py::test_add["),
        SuiteCheck(id="tests/test_core.py::test_mean"),
        SuiteCheck(id="tests/test_core.py::test_kept"),
        UnitCheck(id="tests.test_steps.StepsTest.test_some"),
        UnitCheck(id="tests.test_steps.StepsTest.test_none"),
    )


def test_the_tests_that_fail_are_hidden_and_named(calc: TaskSet, boxes: SandboxProvider) -> None:
    task = next(task for task in calc.tasks if task.labels["function"].endswith("::add"))
    assert failing(task) == ["tests/test_core.py::test_add[", "tests/test_core.py::test_mean"]
    assert "2 of its 5 tests fail; they are not shown" in task.prompt
    assert "tests/test_core.py::test_mean: AssertionError" in task.prompt
    assert task.tree is not None and ".git/HEAD" in task.tree.files
    shown = task.tree.files["tests/test_core.py"].data.decode()
    assert "test_add" not in shown and "parametrize" not in shown and "test_once" in shown
    assert len(shown.splitlines()) == len(SOURCE_LAYOUT["tests/test_core.py"].splitlines())
    assert task.reference == {"src/calc/core.py": CORE}

    verdict = asyncio.run(make_grader(boxes)(task, work_of(task, {})))
    assert [name for name, passed in verdict.passed.items() if not passed] == failing(task)


def test_difficulty_is_graded(calc: TaskSet) -> None:
    for task in calc.tasks:
        assert task.labels["difficulty"] == str(difficulty(len(failing(task)), 5, 1))
    grades = [difficulty(f, 20, bugs) for f, bugs in ((10, 1), (9, 1), (1, 1), (1, 2), (1, 9))]
    assert grades == [1, 2, 3, 4, 4]


def test_every_task_is_fit_to_train_on(boxes: SandboxProvider, tmp_path: Path) -> None:
    options = RepairOptions(mutations=2, heldout_functions=0, show_failing_tests=True)
    tasks = made(laid_out(tmp_path / "shop", FLAT), boxes, options=options)
    doubles = [task for task in tasks.tasks if task.labels["mutations"] == "2"]
    assert 0 < len(doubles) < len(tasks.tasks) == len({task.id for task in tasks.tasks})
    assert {len(failing(task)) for task in doubles} == {2}
    assert all(
        task.tree and task.tree.files["test_shop.py"].data.decode() == FLAT["test_shop.py"]
        for task in doubles
    )
    assert "they are in the folder" in doubles[0].prompt
    assert asyncio.run(check_tasks(tasks, make_grader(boxes), repeats=1)).sound


def test_a_run_that_was_broken_off_goes_on(boxes: SandboxProvider, tmp_path: Path) -> None:
    folder, ran = laid_out(tmp_path / "shop", FLAT), 0

    async def counted(jobs: Sequence[CheckJob], *args: Any, **more: Any) -> list[list[CheckResult]]:
        nonlocal ran
        if ran > most:
            raise SandboxError("no more")
        ran += len(jobs)
        return await run_checks(jobs, *args, **more)

    most, cache = 3, tmp_path / "cache"
    with pytest.raises(SandboxError):
        made(folder, boxes, counted, cache=cache)
    most, first = 1000, ran
    tasks = made(folder, boxes, counted, cache=cache)
    whole, ran = ran, 0
    again = made(folder, boxes, counted)
    assert [task.id for task in again.tasks] == [task.id for task in tasks.tasks]
    assert [task.prompt for task in again.tasks] == [task.prompt for task in tasks.tasks]
    assert first == 4 and whole == ran  # no job was run twice
    few = made(folder, boxes, cache=cache, limit=2)
    assert {task.labels["function"] for task in few.tasks} == {"shop.py::price", "shop.py::total"}
    train = made(folder, boxes, cache=cache, split="heldout_mutations")
    assert [t.id for t in train.tasks] == [t.id for t in tasks.split("heldout_mutations")]


def test_a_repository_is_read_as_git_has_it(tmp_path: Path) -> None:
    folder = laid_out(tmp_path / "shop", {**FLAT, ".github/x.py": "1", "build/shop.py": "1"})
    [plain] = packages(folder)
    assert isinstance(plain, Package) and sorted(plain.files) == sorted(FLAT)
    assert list(plain.sources) == ["shop.py"] and list(plain.test_files) == ["test_shop.py"]
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(folder)]
    for words in ("init -q", "add shop.py", "commit -qm one"):
        subprocess.run([*git, *words.split()], check=True, capture_output=True)
    (folder / "shop.py").write_text("later\n")
    [committed] = packages(folder)
    assert isinstance(committed, Package)
    assert committed.sources == {"shop.py": FLAT["shop.py"]} and len(committed.files) == 1


def test_what_gives_no_tasks_is_named(boxes: SandboxProvider, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder"):
        made(tmp_path / "absent", boxes)
    untested = {"shop.py": FLAT["shop.py"]}
    tasks = made(laid_out(tmp_path / "shop", untested), boxes)
    none = "none of its 0 tests can be used"
    assert not tasks.tasks and tasks.skipped == (Skipped(id="shop", reason=none),)
    needy = {"test_needy.py": "import no_such_package\ndef test_a(): pass\n"}
    [skipped] = made(laid_out(tmp_path / "needy", untested | needy), boxes).skipped
    assert "none of its 1 tests" in skipped.reason and "'no_such_package'" in skipped.reason


def test_tests_are_found_by_reading() -> None:
    text = """\
import unittest
from base import Base
async def test_later(): pass
def helper(): pass
class TestA:
    class TestB:
        @mark
        def test_deep(self):
            pass
    def test_a(self): pass
class Other(Base):
    def test_base(self): pass
class Plain:
    def test_never(self): pass
"""
    found = suite_tests({"tests/test_x.py": text, "tests/data.json": "{", "bad_test.py": "def"})
    assert [test.forms[-2].id.partition("::")[2] for test in found] == [
        "test_later",
        "TestA::TestB::test_deep",
        "TestA::test_a",
        "Other::test_base",
    ]
    assert found[3].forms[0] == UnitCheck(id="tests.test_x.Other.test_base")
    cut = without({"tests/test_x.py": text}, found[1:3])["tests/test_x.py"]
    assert "test_deep" not in cut and "@mark" not in cut and "test_a" not in cut
    assert "test_later" in cut and len(cut.splitlines()) == len(text.splitlines())
    compile(cut, "x", "exec")
