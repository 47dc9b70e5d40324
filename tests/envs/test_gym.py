"""The Gymnasium adapter."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from typing import Any

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env

from palestra.envs.gym import TaskEnv
from palestra.envs.programs import Function, program
from palestra.envs.repair import Repair
from palestra.envs.repair_source import RepairOptions, build
from palestra.envs.spaces import TextSpace
from palestra.envs.validate import Validator
from palestra.rl.errors import InfraError, UserError
from palestra.rl.types import Outcome, Task, Verdict

INC = Function(
    name="inc",
    source="def inc(x):\n    y = x + 1\n    return y\n",
    cases=(("(1,)", "2"), ("(5,)", "6")),
)


@pytest.fixture
def tasks(world: Any) -> tuple[Task, ...]:
    validator = Validator(run_checks=world.run_checks, provider=world.provider, screen=False)
    made = build([program(INC)], source="test", options=RepairOptions(), validator=validator)
    return asyncio.run(made).tasks


@pytest.fixture
def env(world: Any, tasks: tuple[Task, ...]) -> Iterator[TaskEnv]:
    env = TaskEnv(Repair(world.run_checks), tasks, provider=world.provider, grader=world.grade)
    yield env
    env.close()
    env.close()
    assert world.provider.opened == world.provider.closed


def call(name: str, **arguments: Any) -> str:
    return json.dumps({"name": name, "arguments": arguments})


@pytest.mark.filterwarnings("ignore")
def test_gymnasium_accepts_it(env: TaskEnv) -> None:
    check_env(env, skip_render_check=True)


def test_a_solved_episode(env: TaskEnv, tasks: tuple[Task, ...]) -> None:
    prompt, info = env.reset(seed=1, options={"task": tasks[0].id})
    assert "Fix inc.py\n1 def inc(x):" in prompt and info["task_id"] == tasks[0].id
    assert [tool["name"] for tool in info["tools"]] == ["view", "replace", "test", "submit"]
    assert env.step(call("replace", line=2, text="    y = x + 1"))[:4] == ("ok", 0.0, False, False)
    assert env.step(call("replace", line=3, text="    return y"))[0] == "ok"
    text, reward, terminated, truncated, info = env.step(call("submit"))
    assert (text, reward, terminated, truncated) == ("", 1.0, True, False)
    assert info["reward_parts"] == {"tests_pass": 1.0} and all(info["passed"].values())


def test_giving_up_and_running_out_differ(env: TaskEnv) -> None:
    env.reset(seed=1)
    assert env.step(call("submit"))[1:4] == (0.0, True, False)
    env.reset(seed=1)
    ends = [env.step(call("view"))[2:4] for _ in range(env.env.max_turns)]
    assert ends == [(False, False)] * 7 + [(False, True)]


@pytest.mark.parametrize("action", ["", "hello", "[]", '{"name": 1}', '{"name": "view", "x": 1}'])
def test_malformed_actions_are_answered(env: TaskEnv, action: str) -> None:
    env.reset(seed=1)
    text, reward, terminated, truncated, info = env.step(action)
    assert "view, replace, test, submit" in text and info["error"]
    assert (reward, terminated, truncated) == (0.0, False, False)


def test_a_fault_of_ours_is_no_reward(world: Any, tasks: tuple[Task, ...]) -> None:
    async def broken(task: Task, files: Mapping[str, bytes]) -> Verdict:
        return Verdict(outcome=Outcome.INFRA_FAILURE, reason="no box")

    env = TaskEnv(Repair(world.run_checks), tasks, provider=world.provider, grader=broken)
    env.reset(seed=1)
    with pytest.raises(InfraError, match="no box"):
        env.step(call("submit"))
    env.close()


def test_wrong_use(env: TaskEnv) -> None:
    with pytest.raises(UserError, match="reset"):
        env.step(call("view"))
    with pytest.raises(UserError, match="no task 'x'"):
        env.reset(options={"task": "x"})


def test_it_works_inside_a_running_loop(env: TaskEnv) -> None:
    async def inside() -> str:
        return env.reset(seed=0)[0]

    assert "Fix inc.py" in asyncio.run(inside())


def test_text_space() -> None:
    space = TextSpace(max_bytes=10, seed=1)
    assert isinstance(space, gymnasium.Space)
    assert "é" * 5 in space and "é" * 6 not in space and 3 not in space and "\ud800" in space
    assert all(space.sample() in space for _ in range(100))
    assert space == TextSpace(max_bytes=10) and space != TextSpace(max_bytes=11)
    with pytest.raises(ValueError, match="negative"):
        TextSpace(max_bytes=-1)
