"""Task sources, on the real files where they are there."""

from __future__ import annotations

import asyncio
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from palestra.envs.complete import Complete
from palestra.envs.corpus_loader import parse
from palestra.envs.repair import Repair
from palestra.envs.repair_source import RepairOptions
from palestra.envs.sources import load
from palestra.envs.task_json import task_to_json
from palestra.envs.taskset import TaskSet
from palestra.envs.unit_tests import keep_only, unit_checks
from palestra.rl.errors import UserError


def read(world: Any, source: str, **more: Any) -> TaskSet:
    run_checks, provider = world.run_checks, world.provider
    return asyncio.run(load(source, run_checks=run_checks, provider=provider, seed=0, **more))


@pytest.fixture
def real() -> Any:
    """The real sandbox; skipped where this machine cannot make one."""
    from palestra.rl.errors import PalestraError
    from palestra.sandbox.bubblewrap import Bubblewrap
    from palestra.sandbox.checks import make_grader, run_checks

    class Real:
        def __init__(self) -> None:
            self.provider = Bubblewrap()
            self.run_checks = staticmethod(run_checks).__func__
            self.grade = make_grader(self.provider)

    async def probe(world: Real) -> None:
        async with world.provider.open() as box:
            await box.exec(["true"])

    try:
        world = Real()
        asyncio.run(probe(world))
    except (PalestraError, OSError) as error:
        pytest.skip(f"no sandbox here: {error}")
    return world


@pytest.mark.parametrize(
    ("name", "rows", "skipped"),
    [
        ("mbpp.jsonl", 974, 0),
        ("sanitized-mbpp.json", 427, 0),
        ("mxeval_mbpp_release_v1.jsonl", 974, 1),
    ],
)
def test_mbpp(world: Any, data: Path, name: str, rows: int, skipped: int) -> None:
    made = read(world, f"mbpp:{data}/mbpp/{name}")
    assert made.env == Complete.name and len({task.id for task in made.tasks}) == len(made.tasks)
    assert (len(made.tasks), len(made.skipped)) == (rows - skipped, skipped)
    first = made.tasks[0]
    assert first.id == "MBPP/1" or first.id == "MBPP/2"
    assert first.files == {"solution.py": ""} and first.reference["solution.py"]
    assert "\r" not in first.reference["solution.py"]
    assert len(read(world, f"mbpp:{data}/mbpp/{name}", limit=5).tasks) == 5


def test_mbpp_functions_as_repair_tasks(real: Any, data: Path, tmp_path: Path) -> None:
    made = read(real, f"repair:mbpp:{data}/mbpp/sanitized-mbpp.json", limit=6, cache=tmp_path)
    assert made.env == Repair.name and len(made.tasks) == 6
    assert any("not of the form" in item.reason for item in made.skipped)


def test_an_exercise_as_repair_tasks(real: Any, data: Path) -> None:
    options = RepairOptions(max_mutants=4)
    folder = data / "exercism-python" / "practice" / "leap"
    made = read(real, f"repair:{folder}", options=options)
    assert made.tasks and not made.skipped
    task = made.tasks[0]
    assert task.artifacts == ("leap.py",) and len(task.hidden) == 9 and len(task.visible) == 4
    assert task.hidden[0].id == "leap_test.LeapTest.test_year_not_divisible_by_4_in_common_year"
    verdict = asyncio.run(real.grade(task, {p: t.encode() for p, t in task.reference.items()}))
    assert verdict.solved, verdict.reason


def test_the_shipped_corpus_in_the_real_sandbox(real: Any, tmp_path: Path) -> None:
    made = read(real, "repair:", limit=3, cache=tmp_path)
    assert len(made.tasks) == 3 and not made.skipped
    for task in made.tasks:
        good = asyncio.run(real.grade(task, {p: t.encode() for p, t in task.reference.items()}))
        bad = asyncio.run(real.grade(task, {p: t.encode() for p, t in task.files.items()}))
        assert good.solved and not bad.solved


def test_a_package(real: Any, tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").write_text("")
    (tmp_path / "shop" / "price.py").write_text("def total(a, b):\n    return a + b\n")
    (tmp_path / "test_shop.py").write_text(
        "import unittest\nfrom shop.price import total\n\n\nclass T(unittest.TestCase):\n"
        "    def test_total(self):\n        self.assertEqual(total(2, 3), 5)\n"
    )
    made = read(real, f"repair:{tmp_path}", options=RepairOptions(heldout_functions=0))
    assert made.tasks and made.tasks[0].artifacts == ("shop/__init__.py", "shop/price.py")
    assert made.tasks[0].prompt.startswith("Fix this program. Its files: shop/__init__.py, shop/")


def test_humaneval_rows_and_bad_rows(world: Any, tmp_path: Path) -> None:
    good = {
        "task_id": "HumanEval/0",
        "prompt": "def one():\n    return 1\n\n\ndef f(x):\n    '''Doc.'''\n",
        "entry_point": "f",
        "canonical_solution": "    return x\n",
        "test": "def check(candidate):\n    assert candidate(one()) == 1\n",
    }
    lines = [json.dumps(good), "{cut", "[]", json.dumps({**good, "test": 3}), ""]
    path = tmp_path / "HumanEval.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    made = read(world, f"humaneval:{path}")
    [task] = made.tasks
    assert getattr(task.hidden[0], "names", ()) == ("f", "one")
    names = [item.id for item in made.skipped]
    assert names == [f"HumanEval.jsonl.gz row {number}" for number in (2, 3, 4)]
    reasons = [item.reason for item in made.skipped]
    assert reasons[0].startswith("not JSON") and reasons[1:] == [
        "not a JSON object",
        "field test: not a string",
    ]


def test_tasks_of_your_own_survive_storage(world: Any, data: Path, tmp_path: Path) -> None:
    tasks = read(world, f"mbpp:{data}/mbpp/mbpp.jsonl", limit=3).tasks
    rows = [task_to_json(task) for task in tasks]
    bad = [{**rows[0], "extra": 1}, {**rows[0], "hidden": []}, {**rows[0], "files": {"/x": ""}}]
    path = tmp_path / "own.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *bad]))
    made = read(world, f"jsonl:{path}")
    assert list(made.tasks) == list(tasks)
    assert [item.reason for item in made.skipped] == [
        "field extra: unknown",
        "field hidden: empty",
        "field files: '/x' is not a path inside the task",
    ]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("nonsense:x", "unknown task source 'nonsense:x'; there are: repair:"),
        ("mbpp:", "mbpp: needs a path"),
        ("mbpp:/no/such.jsonl", "cannot read /no/such.jsonl"),
        ("repair:/no/such", "no folder /no/such"),
        ("acme/Nothing-v0", "no environment 'acme/Nothing-v0'"),
        ("nonsense.times:Times", "unknown task source"),
        ("json:Times", "environment json:Times: module 'json' has no attribute 'Times'"),
        ("json:JSONDecoder", "is no subclass of palestra.envs.base.Env"),
    ],
)
def test_wrong_sources_are_one_line(world: Any, source: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        read(world, source)
    assert "\n" not in str(caught.value)


def test_test_methods_are_found_and_cut_out() -> None:
    text = (
        "import unittest\n\n\nclass T(unittest.TestCase):\n    def test_a(self):\n        pass\n\n"
        "    @unittest.skip('x')\n    def test_secret(self):\n        assert secret() == 1\n"
    )
    ids = [check.id for check in unit_checks({"pkg/x_test.py": text})]
    assert ids == ["pkg.x_test.T.test_a"]  # what is always skipped can be no check
    kept = keep_only({"pkg/x_test.py": text}, {ids[0]})["pkg/x_test.py"]
    assert "secret" not in kept and "test_a" in kept
    assert len(kept.splitlines()) == len(text.splitlines())
    assert [c.id for c in unit_checks({"pkg/x_test.py": kept})] == ids


def test_a_corpus_module_of_the_wrong_form_is_named() -> None:
    source = "def f(x):\n    return x\n\n\nCASES = {'f': [((1,), 1)]}\n"
    [function] = parse(source, name="m.py")
    assert function.cases == (("(1,)", "1"),) and function.source == "def f(x):\n    return x\n"
    for bad in ("", "CASES = {'g': []}", source.replace("(1,), 1", "1, 1")):
        with pytest.raises(ValueError, match=r"m\.py"):
            list(parse(bad, name="m.py"))
