"""What playing the environments in ``theirs`` must give, whichever package is installed.

Run as a script, it plays what it is told: ``python episodes.py v0``, ``v1``, or ``openenv URL``
with the address of ``theirs/counting_server.py``.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from palestra.envs.base import Env
from palestra.envs.registry import make
from palestra.rl.errors import InfraError, UserError
from palestra.rl.types import Json, Observation, Task, ToolCall, Verdict

Call = tuple[str, dict[str, Json]]


async def no_checks(*_: object, **__: object) -> list[list[object]]:
    raise AssertionError("nothing is checked in boxes")


def env_of(name: str) -> Env:
    return make(name, no_checks)  # type: ignore[arg-type]


async def _episode(
    env: Env, task: Task, calls: Sequence[Call]
) -> tuple[list[Observation], Verdict | None]:
    box: object = object()
    try:
        await env.setup(task, box)  # type: ignore[arg-type]
        shown = [
            await env.act(task, ToolCall(name=name, arguments=arguments), box)  # type: ignore[arg-type]
            for name, arguments in calls
        ]
        return shown, await env.judge(task, (), box)  # type: ignore[arg-type]
    finally:
        await env.teardown(task, box)  # type: ignore[arg-type]


def played(env: Env, task: Task, *calls: Call) -> tuple[list[str], dict[str, float], bool]:
    """What was shown, the rewards, and whether the environment ended the episode."""
    shown, verdict = asyncio.run(_episode(env, task, calls))
    assert verdict is not None
    assert verdict.solved == (verdict.rewards["reward"] >= 1.0)
    return [each.text for each in shown], dict(verdict.rewards), bool(shown and shown[-1].submitted)


def say(text: str) -> Call:
    return "reply", {"text": text}


def fails(name: str, *calls: Call) -> str:
    """Why an episode has no reward at all."""
    env = env_of(name)
    try:
        played(env, env.tasks(0)[1], *calls)
    except InfraError as error:
        return str(error)
    raise AssertionError("it was graded")


def refused(name: str) -> str:
    try:
        env_of(name)
    except UserError as error:
        return str(error)
    raise AssertionError("it was loaded")


def single_turn(name: str) -> None:
    env = env_of(name)
    task = env.tasks(0)[1]
    assert [(m.role, m.content) for m in env.prompt(task)] == [
        ("system", "Be short."),
        ("user", "Say 1 twice."),
    ]
    shown, rewards, ended = played(env, task, say("1 1"))
    assert (shown, ended) == ([""], True)
    assert (rewards["right"], rewards["brief"], rewards["reward"]) == (1.0, 1.0, 1.5)
    assert played(env, task, say("wrong, and much too long"))[1]["reward"] == 0.0
    assert played(env, task)[1]["right"] == 0.0  # said nothing: a reward, not a fault


def classic() -> None:
    """Environments of the interface v0."""
    single_turn("verifiers:words_v0")
    env = env_of("verifiers:words_v0?kind=tool")
    assert [tool.name for tool in env.tools] == ["lookup", "reply"]
    calls = [("lookup", {"word": "a"}), ("lookup", {"word": "bad"}), say("1 1")]
    shown, rewards, ended = played(env, env.tasks(0)[1], *calls)  # type: ignore[arg-type]
    assert (shown, ended) == (["A", "not a word", ""], True)
    assert (rewards["lookup_calls"], rewards["reward"]) == (2.0, 1.5)

    guess = env_of("verifiers:words_v0?kind=guess")
    splits = [task.labels["split"] for task in guess.tasks(0)]
    assert splits == ["train"] * 4 + ["heldout"] * 4
    task = guess.tasks(0)[5]
    shown, rewards, ended = played(guess, task, say("1"), say("1 1"))
    assert (shown, ended) == (["no, that was try 1", ""], True)
    assert (rewards["tries"], rewards["right"]) == (2.0, 1.0)
    shown, rewards, ended = played(guess, task, say("1"))  # ended by a limit of ours
    assert (len(shown), ended, rewards["num_turns"]) == (1, False, 1.0)

    assert "no judge" in fails("verifiers:words_v0?fail=true", say("1 1"))
    assert "the game broke" in fails("verifiers:words_v0?kind=guess", say("crash"))
    assert "unexpected keyword argument" in refused("verifiers:words_v0?kin=tool")


def tasksets() -> None:
    """Tasksets of the interface v1."""
    single_turn("verifiers:words_v1")
    assert len(env_of("verifiers:words_v1?count=7").tasks(0)) == 7
    assert "no judge" in fails("verifiers:words_v1", say("crash"))
    assert "rewards that look into a box (file_is_there)" in refused("verifiers:boxed_v1")
    assert "words_v7" in refused("verifiers:words_v7")


def server(url: str) -> None:
    """The counting server: say numbers until they add up to 10."""
    env = env_of(f"openenv:{url}?seeds=4")
    task = env.tasks(0)[1]
    left = 10 - int(task.prompt.split("total is ")[1].split(".")[0])
    steps: list[Call] = [("step", {"number": 1}), ("step", {"number": left - 1})]
    shown, rewards, ended = played(env, task, *steps)
    assert ("The total is 10." in shown[1], rewards, ended) == (True, {"reward": 1.0}, True)
    assert played(env, task, ("step", {"number": 30}))[1] == {"reward": 0.0}
    assert "the server broke" in fails(env.name, ("step", {"number": -1}))


if __name__ == "__main__":
    {"v0": classic, "v1": tasksets, "openenv": server}[sys.argv[1]](*sys.argv[2:])
    print(f"{sys.argv[1]}: as expected")
