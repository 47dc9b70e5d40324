"""Environments that judge by themselves: what their verdict becomes, and what they hold open."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import pytest

from palestra.envs.arguments import tool
from palestra.envs.base import Env
from palestra.rewards.environment import environment
from palestra.rewards.score import Scheme, Weighted
from palestra.rl.errors import GraderError, InfraError, TaskError
from palestra.rl.types import (
    Json,
    Observation,
    Outcome,
    Sandbox,
    Stop,
    Task,
    Tool,
    ToolCall,
    Trajectory,
    Turn,
    Verdict,
)
from palestra.rollout.dialects import DIALECTS
from palestra.rollout.episode import Ticket, World, play

MakeWorld = Callable[..., World]
MakeTicket = Callable[..., Ticket]
GO = DIALECTS["qwen3_coder"].render(ToolCall(name="go", arguments={}))
VERDICT = Verdict(
    outcome=Outcome.GRADED, passed={"environment": False}, rewards={"reward": 0.5, "style": 3.0}
)


class Judging(Env):
    """Counts what it holds open, and breaks where it is told to."""

    name: ClassVar[str] = "test/Judging-v0"
    tools: ClassVar[tuple[Tool, ...]] = (tool("go", "Go on."),)
    rewards: ClassVar[Mapping[str, Weighted]] = {"environment": Weighted(reward=environment)}
    max_turns: int = 2

    def __init__(self, broken: str, error: Exception) -> None:
        super().__init__(None)  # type: ignore[arg-type]
        self._broken, self._error = broken, error
        self.open = self.closed = 0

    def _maybe(self, where: str) -> None:
        if where == self._broken:
            raise self._error

    async def setup(self, task: Task, box: Sandbox) -> None:
        self.open += 1
        self._maybe("setup")

    async def apply(
        self, task: Task, name: str, arguments: Mapping[str, Json], box: Sandbox
    ) -> Observation:
        self._maybe("apply")
        return Observation(text="on")

    async def judge(self, task: Task, turns: Sequence[Turn], box: Sandbox) -> Verdict | None:
        assert len(turns) == 2
        self._maybe("judge")
        if self._broken == "hang":
            await asyncio.Event().wait()
        return VERDICT

    async def teardown(self, task: Task, box: Sandbox) -> None:
        self.closed += 1


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    return make_world([GO, GO])


def with_env(world: World, env: Env, **config: float) -> World:
    config_of = world.config.model_copy(update=config)
    return replace(world, env=env, scheme=Scheme(env.rewards), config=config_of)


def test_its_verdict_stands_and_nothing_is_graded(world: World, make_ticket: MakeTicket) -> None:
    env = Judging("", InfraError())
    played = asyncio.run(play(make_ticket(), with_env(world, env)))
    assert (played.stop, played.outcome) == (Stop.MAX_TURNS, Outcome.GRADED)
    assert played.reward is not None and played.reward.total == 0.5
    assert played.reward.parts == {
        "environment": 0.5,
        "verifier/reward": 0.5,
        "verifier/style": 3.0,
    }
    assert world.grade.seen == []  # type: ignore[attr-defined]
    assert (env.open, env.closed) == (1, 1)


@pytest.mark.parametrize(
    ("broken", "error", "outcome"),
    [
        ("setup", InfraError("no server"), Outcome.INFRA_FAILURE),
        ("setup", RuntimeError("a bug"), Outcome.INFRA_FAILURE),
        ("setup", TaskError("no such row"), Outcome.TASK_FAILURE),
        ("apply", InfraError("no answer"), Outcome.INFRA_FAILURE),
        ("judge", InfraError("no score"), Outcome.INFRA_FAILURE),
        ("judge", ZeroDivisionError("a bug"), Outcome.INFRA_FAILURE),
        ("hang", InfraError(), Outcome.INFRA_FAILURE),
    ],
)
def test_a_fault_is_no_reward_and_nothing_stays_open(
    world: World, make_ticket: MakeTicket, broken: str, error: Exception, outcome: Outcome
) -> None:
    env = Judging(broken, error)
    limit = 0.2 if broken == "hang" else 60.0
    played = asyncio.run(play(make_ticket(), with_env(world, env, episode_timeout=limit)))
    assert (played.outcome, played.reward) == (outcome, None)
    assert (env.open, env.closed) == (1, 1)
    assert world.boxes.open_now == 0  # type: ignore[attr-defined]


def test_a_solution_that_was_not_played_has_no_reward(
    make_trajectory: Callable[..., Trajectory],
) -> None:
    with pytest.raises(GraderError, match="gave no reward"):
        asyncio.run(environment(make_trajectory(), None))
