"""An OpenEnv server as an environment, against a server of the same wire protocol."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TypeAlias

import pytest

from palestra.deploy.cli import main
from palestra.envs.adapters import openenv_session
from palestra.envs.adapters.openenv import openenv
from palestra.envs.base import Env
from palestra.rl.errors import InfraError, TaskError, UserError
from palestra.rl.types import Json, Observation, Sandbox, Task, ToolCall, Verdict

Serve: TypeAlias = Callable[..., AbstractContextManager[str]]


@pytest.fixture(scope="module")
def url(serve: Serve) -> Iterator[str]:
    with serve() as address:
        yield address


def env_at(url: str) -> Env:
    return openenv(f"{url}?seeds=4")(None)  # type: ignore[arg-type]


async def episode(
    env: Env, task: Task, *actions: dict[str, Json]
) -> tuple[list[Observation], Verdict | None]:
    box: Sandbox = object()  # type: ignore[assignment]
    try:
        await env.setup(task, box)
        calls = (ToolCall(name="step", arguments=action) for action in actions)
        shown = [await env.act(task, call, box) for call in calls]
        return shown, await env.judge(task, (), box)
    finally:
        await env.teardown(task, box)


def first_total(task: Task) -> int:
    return int(task.prompt.split("total is ")[1].split(".")[0])


def test_an_action_is_the_argument_of_the_tool_and_a_seed_is_a_task(url: str) -> None:
    env = env_at(url)
    [step] = env.tools
    assert step.description == "Take one action. Say numbers that add up to 10."
    assert step.parameters["properties"] == {
        "number": {"type": "integer"},
        "how": {"type": "string", "default": ""},
    }
    tasks = env.tasks(7)
    assert [task.labels["seed"] for task in tasks] == ["7", "8", "9", "10"]
    assert [task.labels["split"] for task in tasks] == ["train"] * 3 + ["heldout"]


def test_rewards_of_steps_add_up(url: str) -> None:
    env = env_at(url)
    task = env.tasks(0)[0]
    left = 10 - first_total(task)
    shown, verdict = asyncio.run(episode(env, task, {"number": 1}, {"number": left - 1}))
    assert [each.submitted for each in shown] == [False, True]
    assert "The total is 10." in shown[1].text
    assert verdict and verdict.rewards == {"reward": 1.25} and verdict.solved
    _, verdict = asyncio.run(episode(env, task, {"number": 1}))  # ended by a limit of ours
    assert verdict and verdict.rewards == {"reward": 0.25} and not verdict.solved


def test_what_the_policy_does_wrong_is_told_to_it(url: str) -> None:
    env = env_at(url)
    actions: list[dict[str, Json]] = [{"number": "x"}, {"number": 1, "how": "not valid"}, {}]
    shown, verdict = asyncio.run(episode(env, env.tasks(0)[0], *actions))
    assert [each.text for each in shown] == [
        "number must be a whole number such as 3",
        "the action is not valid: number is odd",
        "step needs number; use step(number, how)",
    ]
    assert verdict and verdict.rewards == {"reward": 0.0}


@pytest.mark.parametrize(
    "how",
    [
        *("error", "nan", "infinite", "text", "none"),
        *("no json", "no object", "no observation", "huge", "hang up", "wait"),
    ],
)
def test_a_fault_of_the_server_is_no_reward(
    url: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openenv_session, "STEP_S", 0.2 if how == "wait" else 60.0)
    env = env_at(url)
    task = env.tasks(0)[0]
    with pytest.raises(InfraError):
        asyncio.run(episode(env, task, {"number": 20, "how": how}))


def test_an_answer_that_never_came_is_no_reward(url: str) -> None:
    """The time limit of an episode ends the wait for the server: that is not the agent's fault."""
    env = env_at(url)
    task = env.tasks(0)[0]

    async def interrupted() -> None:
        box: Sandbox = object()  # type: ignore[assignment]
        await env.setup(task, box)
        call = ToolCall(name="step", arguments={"number": 1, "how": "wait"})
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await env.act(task, call, box)
        try:
            with pytest.raises(InfraError, match="did not answer"):
                await env.judge(task, (), box)
        finally:
            await env.teardown(task, box)

    asyncio.run(interrupted())


def test_episodes_wait_for_a_free_session(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openenv_session, "RETRY_S", 0.05)

    async def many(env: Env, task: Task) -> list[Verdict | None]:
        episodes = [episode(env, task, {"number": 20}) for _ in range(4)]
        return [verdict for _, verdict in await asyncio.gather(*episodes)]

    with serve(sessions=1) as url:
        env = env_at(url)
        verdicts = asyncio.run(many(env, env.tasks(0)[0]))
    assert all(verdict and verdict.rewards == {"reward": 0.0} for verdict in verdicts)


def test_siblings_must_start_alike(serve: Serve) -> None:
    count = itertools.count()
    with serve(start=lambda seed: next(count)) as url:
        with pytest.raises(UserError, match="do not show the same"):
            env_at(url).tasks(0)
    starts = itertools.chain([3] * 8, itertools.count())  # two of each of four seeds, then any
    with serve(start=lambda seed: next(starts)) as url:
        env = env_at(url)
        with pytest.raises(TaskError, match="something else now"):
            asyncio.run(episode(env, env.tasks(0)[0]))


@pytest.mark.parametrize("address", ["", "localhost", "http://host?seeds=x", "http://host?n=1"])
def test_a_wrong_address_says_how_to_write_it(address: str) -> None:
    with pytest.raises(UserError, match=r"http://HOST:PORT|seeds=N"):
        openenv(address)


def test_no_server_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks", "show", "openenv:http://127.0.0.1:1"]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "http://127.0.0.1:1/schema" in line
