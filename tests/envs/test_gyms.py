"""Environments that make their own questions: conformance, and what is special to each."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from dataclasses import replace
from itertools import permutations
from typing import Any

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from palestra.envs.base import Env
from palestra.envs.check import check_tasks
from palestra.envs.faithfulness.env import Faithfulness
from palestra.envs.fresh import Stage
from palestra.envs.gym import TaskEnv
from palestra.envs.instructions.env import Instructions
from palestra.envs.logic.cryptarithm import solutions as cryptarithm_solutions
from palestra.envs.logic.env import Logic
from palestra.envs.logic.sudoku import sudoku
from palestra.envs.math.env import Math
from palestra.envs.math.rows import last_boxed, math_task
from palestra.envs.rows import BadRow
from palestra.envs.safety.env import Safety
from palestra.envs.taskset import TaskSet
from palestra.envs.tool_use.env import ToolUse
from palestra.rewards.answers.grade import AnswerGrader
from palestra.rl.config import EvalConfig
from palestra.rl.types import AnswerCheck

ANSWERED: list[type[Env]] = [Math, Logic, Instructions, Faithfulness]
GYMS = [*ANSWERED, ToolUse, Safety]


@pytest.mark.parametrize("gym", GYMS)
def test_tasks_are_sound_and_the_same_for_the_same_seed(gym: type[Env], world: Any) -> None:
    env = gym(world.run_checks)
    tasks = tuple(env.tasks(0))
    assert tasks == tuple(env.tasks(0)) != tuple(env.tasks(1))
    assert len({task.id for task in tasks}) == len(tasks)
    splits = Counter(task.labels["split"] for task in tasks)
    assert splits["train"] == 3 * splits["heldout"]
    assert set(splits) <= {"train", *EvalConfig().splits}, "a run evaluates what is held out"
    some = TaskSet(source=env.name, env=env.name, tasks=tasks[::3])
    stage = Stage(env=env, provider=world.provider)
    grader = AnswerGrader(world.grade)
    report = asyncio.run(check_tasks(some, grader, repeats=1, stage=stage))
    assert report.sound, report.to_json()["invalid"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("gym", ANSWERED)
def test_gymnasium_accepts_it(gym: type[Env], world: Any) -> None:
    env = gym(world.run_checks)
    easy = [task for task in env.tasks(0) if task.labels["difficulty"] == "1"]
    grader = AnswerGrader(world.grade)
    played = TaskEnv(env, easy, provider=world.provider, grader=grader)
    check_env(played, skip_render_check=True)
    prompt, info = played.reset(seed=0, options={"task": easy[0].id})
    assert easy[0].prompt in prompt and [tool["name"] for tool in info["tools"]] == ["submit"]
    right = json.dumps({"name": "submit", "arguments": {"answer": easy[0].reference["answer.txt"]}})
    assert played.step(right)[1:4] == (1.0, True, False)
    played.reset(seed=0, options={"task": easy[0].id})
    wrong = json.dumps({"name": "submit", "arguments": {"answer": "I do not know"}})
    assert played.step(wrong)[1:4] == (0.0, True, False)
    played.close()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("gym", GYMS)
def test_demonstrations_are_worth_a_reward_of_1(gym: type[Env], world: Any) -> None:
    env = gym(world.run_checks)
    hard = [task for task in env.tasks(0) if task.labels["difficulty"] == "4"][:24:7]
    bare = [replace(task, reference={}, labels={}) for task in hard]
    assert not list(env.demonstrations(bare, 0))
    played = TaskEnv(env, hard, provider=world.provider, grader=AnswerGrader(world.grade))
    demos = list(env.demonstrations(hard, 0))
    assert [demo.task_id for demo in demos] == [task.id for task in hard]
    for demo in demos:
        played.reset(seed=0, options={"task": demo.task_id})
        for turn in demo.steps:
            [call] = turn.message.calls
            action = json.dumps({"name": call.name, "arguments": dict(call.arguments)})
            text, reward, ended, *_ = played.step(action)
            assert text == turn.observation
        assert (ended, reward) == (True, 1.0)
        assert len(demo.steps) < env.max_turns or gym in ANSWERED
    played.close()


def test_to_claim_falsely_that_one_obeys_is_worth_less_than_nothing(world: Any) -> None:
    env = Instructions(world.run_checks)
    task = env.tasks(0)[0]
    played = TaskEnv(env, [task], provider=world.provider, grader=AnswerGrader(world.grade))
    right = task.reference["answer.txt"]
    for answer, reward in ((right, 1.0), ("I followed all the rules.", -0.5), ("Well.", 0.0)):
        played.reset(seed=0)
        call = json.dumps({"name": "submit", "arguments": {"answer": answer}})
        assert played.step(call)[1:3] == (reward, True)
    played.close()


def test_they_are_registered() -> None:
    from palestra.deploy.gym import register

    register()
    assert {gym.name for gym in GYMS} <= set(gymnasium.registry)


@given(st.integers(0, 10**6))
@settings(max_examples=20)
def test_a_small_sudoku_has_one_solution(seed: int) -> None:
    made = sudoku(random.Random(seed), 1)
    clues = json.loads(made.expected)["rows"]
    rows = ["".join(p) for p in permutations("1234")]
    fitting = [
        [row for row in rows if all(c in (".", d) for c, d in zip(line, row, strict=True))]
        for line in clues
    ]

    def grids(above: list[str]) -> list[str]:
        if len(above) == 4:
            blocks = [above[y][x : x + 2] + above[y + 1][x : x + 2] for y in (0, 2) for x in (0, 2)]
            return ["\n".join(above)] if all(len(set(block)) == 4 for block in blocks) else []
        return [
            grid
            for row in fitting[len(above)]
            if all(row[x] != line[x] for line in above for x in range(4))
            for grid in grids([*above, row])
        ]

    assert grids([]) == [made.solution]


def test_cryptarithms_are_solved_as_by_hand() -> None:
    [found] = cryptarithm_solutions(["SEND", "MORE"], "MONEY")
    assert found == {"S": 9, "E": 5, "N": 6, "D": 7, "M": 1, "O": 0, "R": 8, "Y": 2}
    assert len(list(cryptarithm_solutions(["A", "B"], "C"))) == 32


@pytest.mark.parametrize(
    ("row", "verifier", "expected"),
    [
        ({"question": "?", "answer": "He has 9.\n#### 1,018"}, "numeric", "1,018"),
        ({"problem": "?", "answer": 204}, "numeric", "204"),
        (
            {"problem": "?", "solution": r"so \boxed{3}, no, \boxed{\frac{1}{\sqrt{2}}}."},
            "symbolic",
            r"\frac{1}{\sqrt{2}}",
        ),
    ],
)
def test_rows_of_benchmarks(row: dict[str, Any], verifier: str, expected: str) -> None:
    task = math_task(row)
    [check] = task.hidden
    assert isinstance(check, AnswerCheck)
    assert (check.verifier, check.expected) == (verifier, expected)
    assert expected not in task.prompt


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"problem": "?"}, "field solution: missing"),
        ({"problem": "?", "solution": "none"}, "field answer: empty"),
        ({"problem": "?", "answer": True}, "field answer: not a string"),
        ({"answer": "1"}, "field problem or question or prompt: missing"),
    ],
)
def test_bad_rows_are_named(row: dict[str, Any], why: str) -> None:
    with pytest.raises(BadRow, match=why):
        math_task(row)


@given(st.text(alphabet=r"\boxed{}1 ", max_size=40))
def test_boxes_are_found_wherever_they_close(text: str) -> None:
    assert last_boxed(rf"{text} \boxed{{a{{b}}}}") == "a{b}"
    assert last_boxed(text).count("{") == last_boxed(text).count("}")
