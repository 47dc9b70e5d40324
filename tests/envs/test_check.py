"""Checking tasks and scoring given solutions."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from palestra.envs.check import check_tasks
from palestra.envs.complete import Complete
from palestra.envs.files import work_of
from palestra.envs.fresh import Stage
from palestra.envs.gate import Gate
from palestra.envs.records import humaneval_task, mbpp_task
from palestra.envs.red_team import HELD, RedTeam
from palestra.envs.rows import BadRow
from palestra.envs.score_rows import score_rows
from palestra.envs.taskset import Skipped, TaskSet
from palestra.rewards import registry
from palestra.rewards.score import Scheme, Weighted
from palestra.rl.errors import GraderError, TaskError, UserError
from palestra.rl.types import Json, Outcome, Task, Verdict

AREA = mbpp_task(
    {
        "task_id": 2,
        "text": "Write area.",
        "code": "def area(r):\r\n    return r * r\r\n",
        "test_list": ["assert area(2) == 4", "assert area(3) == 9"],
    }
)
HALF = humaneval_task(
    {
        "task_id": "HumanEval/0",
        "prompt": 'import math\n\n\ndef half(x):\n    """Half of x."""\n',
        "entry_point": "half",
        "canonical_solution": "    return math.floor(x / 2)\n",
        "test": "def check(candidate):\n    assert candidate(4) == 2\n",
    }
)
TASKS = TaskSet(source="test", env="palestra/Complete-v0", tasks=(AREA, HALF))
REWARDS = Scheme({"tests_pass": Weighted(reward=registry.REWARDS.find("tests_pass"))})


def test_sound_tasks(world: Any) -> None:
    skipped = (Skipped(id="row 3", reason="field code: missing"),)
    report = asyncio.run(check_tasks(replace(TASKS, skipped=skipped), world.grade))
    assert report.sound
    row = report.to_json()
    assert row.pop("wall_s") and set(row.pop("slowest")) == {AREA.id, HALF.id}
    assert row == {
        "source": "test",
        "tasks": 2,
        "reference_pass": 2,
        "no_reference": 0,
        "noop_pass": 0,
        "flaky": 0,
        "red_team": {},
        "invalid": [],
        "skipped": [{"id": "row 3", "reason": "field code: missing"}],
    }


def test_every_problem_is_named(world: Any) -> None:
    count = 0

    async def odd(task: Task, files: Mapping[str, bytes]) -> Verdict:
        nonlocal count
        count += 1
        return Verdict(outcome=Outcome.GRADED, passed={"a": count % 2 == 0})

    wrong = replace(AREA, id="wrong", reference=AREA.files)
    free = replace(AREA, id="free", files=AREA.reference)
    report = asyncio.run(check_tasks(replace(TASKS, tasks=(wrong, free)), world.grade))
    assert [task.problem for task in report.tasks] == [
        "the reference fails: check MBPP/2#0",
        "doing nothing passes",
    ]
    flaky = asyncio.run(check_tasks(replace(TASKS, tasks=(AREA,)), odd, repeats=2))
    assert "repeats of the same grading differ" in flaky.tasks[0].problem


class Careless(Complete):
    """Does not write the same files every time; the third task cannot be set up."""

    starts = 0

    async def setup(self, task: Task, box: Any) -> None:
        if task.id == "impossible":
            raise TaskError("no room for it")
        await super().setup(task, box)
        self.starts += 1
        if task.id == "moody":
            await box.write("start.txt", str(self.starts).encode())


def test_starts_that_differ_and_tasks_that_cannot_start_are_named(world: Any) -> None:
    stage = Stage(env=Careless(world.run_checks), provider=world.provider)
    tasks = (AREA, replace(AREA, id="moody"), replace(AREA, id="impossible"))
    report = asyncio.run(check_tasks(replace(TASKS, tasks=tasks), world.grade, stage=stage))
    assert [task.problem for task in report.tasks] == [
        "",
        "two fresh starts differ: start.txt",
        "the reference fails: no room for it",
    ]


class Counting:
    """A grader that says what it is told, by task, and counts."""

    def __init__(self, solved: Mapping[str, list[bool]]) -> None:
        self.solved = solved
        self.asked: Counter[str] = Counter()

    async def __call__(self, task: Task, work: Any) -> Verdict:
        reference = work == work_of(task, task.reference)
        said = self.solved[task.id]
        solved = reference and said[min(self.asked[task.id], len(said) - 1)]
        self.asked[task.id] += reference
        return Verdict(outcome=Outcome.GRADED, passed={"a": solved})


def test_the_gate_leaves_out_and_names_what_fails_twice(tmp_path: Path) -> None:
    named = {"good": [True], "busy": [True, False, True], "bad": [False]}
    tasks = replace(TASKS, tasks=tuple(replace(AREA, id=name) for name in named))
    grader = Counting(named)
    gate = Gate(grader=grader, cache=tmp_path, settings="a")
    let = asyncio.run(gate.let(tasks))
    assert [task.id for task in let.tasks] == ["good", "busy"]
    assert let.skipped == (Skipped(id="bad", reason="the reference fails: check a"),)
    assert grader.asked == {"good": 3, "busy": 6, "bad": 6}

    assert asyncio.run(gate.let(tasks)) == let
    assert grader.asked == {"good": 3, "busy": 6, "bad": 6}, "it is remembered"
    for file in tmp_path.iterdir():
        file.write_text(file.read_text()[:1] + "x")
    assert asyncio.run(gate.let(tasks)).tasks == let.tasks
    assert grader.asked["good"] == 6, "what was cut short is checked again"
    asyncio.run(replace(gate, settings="b").let(tasks))
    assert grader.asked["good"] == 9


def test_the_gate_passes_faults_of_ours_on(tmp_path: Path) -> None:
    async def broken(task: Task, work: Any) -> Verdict:
        return Verdict(outcome=Outcome.INFRA_FAILURE, reason="no box")

    with pytest.raises(GraderError, match="no box"):
        asyncio.run(Gate(grader=broken, cache=tmp_path, settings="").let(TASKS))
    assert not list(tmp_path.iterdir())


class Copy:
    """An attack that knows the solution of one of the tasks."""

    def __init__(self, reached: str = "") -> None:
        self.reached = reached

    def applies(self, task: Task) -> bool:
        return task is AREA

    def files(self, task: Task) -> Mapping[str, bytes]:
        return {"solution.py": task.reference["solution.py"].encode() + b"# copied"}

    async def act(self, task: Task, box: Any) -> str:
        assert await box.read("solution.py") == self.files(task)["solution.py"]
        return self.reached


def test_attacks_that_pass_are_named(world: Any) -> None:
    def team(attack: Copy) -> RedTeam:
        world.provider.guarantees = HELD
        env = Complete(world.run_checks)
        return RedTeam(attacks={"copy": attack}, env=env, provider=world.provider)

    fooled = asyncio.run(check_tasks(TASKS, world.grade, red_team=team(Copy())))
    assert not fooled.sound and fooled.to_json()["red_team"] == {"copy": 1}
    assert [task.attacks for task in fooled.tasks] == [{"copy": "it passed all 2 checks"}, {}]
    assert fooled.tasks[0].problem == "passed by attack copy"

    async def only_ours(task: Task, files: Mapping[str, bytes]) -> Verdict:
        if files == Copy().files(task):
            return Verdict(outcome=Outcome.INFRA_FAILURE, reason="no box")
        return Verdict(outcome=Outcome.GRADED, passed={"a": False})

    lost = asyncio.run(check_tasks(TASKS, only_ours, red_team=team(Copy())))
    assert lost.tasks[0].attacks == {"copy": "there was no verdict: no box"}
    spied = asyncio.run(check_tasks(TASKS, world.grade, red_team=team(Copy("/tests"))))
    assert spied.tasks[0].attacks == {"copy": "it reached /tests"}


def test_boxes_that_hold_nothing_are_no_place_for_attacks(world: Any) -> None:
    with pytest.raises(UserError, match="folders lacks fs, kill_tree, signals"):
        RedTeam(attacks={}, env=Complete(world.run_checks), provider=world.provider)


def test_our_faults_are_not_verdicts() -> None:
    async def broken(task: Task, files: Mapping[str, bytes]) -> Verdict:
        return Verdict(outcome=Outcome.INFRA_FAILURE, reason="no box")

    with pytest.raises(GraderError, match="no box"):
        asyncio.run(check_tasks(TASKS, broken))
    [row] = scored([{"task_id": "MBPP/2", "completion": ""}], broken)
    assert row["outcome"] == "infra_failure" and row["reward"] is None


def scored(rows: list[Json | BadRow], grader: Any) -> list[dict[str, Json]]:
    async def run() -> list[dict[str, Json]]:
        return [row async for row in score_rows(TASKS, enumerate(rows, 1), grader, REWARDS)]

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("name", "completion", "reward"),
    [
        ("HumanEval/0", "    return math.floor(x / 2)\n", 1.0),
        ("HumanEval/0", "    return x\n", 0.0),
        ("HumanEval/0", "def half(x):\n    return math.floor(x / 2)\n", 1.0),
        ("HumanEval/0", "nonsense(", 0.0),
        ("MBPP/2", "def area(r):\n    return r ** 2\n", 1.0),
        ("MBPP/2", "area = lambda r: r * 3\n", 0.0),
    ],
)
def test_completions(world: Any, name: str, completion: str, reward: float) -> None:
    [row] = scored([{"task_id": name, "completion": completion}], world.grade)
    assert (row["task_id"], row["outcome"], row["reward"]) == (name, "graded", reward)
    assert row["parts"] == {"tests_pass": reward}


def test_an_entry_point_called_check(world: Any) -> None:
    task = humaneval_task(
        {
            "task_id": "x",
            "prompt": "def check(n):\n    'Doc.'\n",
            "entry_point": "check",
            "canonical_solution": "    return n\n",
            "test": "def check(candidate):\n    assert candidate(1) == 1\n",
        }
    )
    report = asyncio.run(check_tasks(replace(TASKS, tasks=(task,)), world.grade))
    assert report.sound


def test_bad_rows_are_named(world: Any) -> None:
    rows: list[Json | BadRow] = [
        {"task_id": "nope", "completion": ""},
        {"task_id": "MBPP/2"},
        {"task_id": "MBPP/2", "files": {"../x": ""}},
        BadRow("not JSON: here"),
        {"task_id": "MBPP/2", "files": {"solution.py": "def area(r):\n    return r * r\n"}},
    ]
    found = scored(rows, world.grade)
    assert [row["reason"] for row in found[:4]] == [
        "row 1: field task_id: no task 'nope' in this source",
        "row 2: needs exactly one of the fields completion and files",
        "row 3: field files: '../x' is none of solution.py",
        "row 4: not JSON: here",
    ]
    assert {row["reward"] for row in found[:4]} == {0.0} and found[4]["reward"] == 1.0
