"""Rewards: hand-computed values, and faults that never become numbers."""

from __future__ import annotations

import asyncio

import pytest

from palestra.envs.registry import ENVIRONMENTS
from palestra.rewards.budget import submitted
from palestra.rewards.format import well_formed
from palestra.rewards.registry import REWARDS
from palestra.rewards.score import RewardError, Scheme, Weighted, score
from palestra.rl.errors import GraderError, InfraError, UserError
from palestra.rl.types import Message, Outcome, RewardFn, Sandbox, Stop, Trajectory, Turn, Verdict

# Imported by name they would be taken for tests.
solved, fraction = (REWARDS.find(name) for name in ("tests_pass", "tests_fraction"))


def turn(error: str = "") -> Turn:
    message = Message(role="assistant", content="")
    return Turn(context_ids=(), token_ids=(), logprobs=(), version=0, message=message, error=error)


def episode(verdict: Verdict | None, *turns: Turn, stop: Stop = Stop.SUBMITTED) -> Trajectory:
    return Trajectory(
        id="t",
        group_id="g",
        task_id="task",
        step=0,
        prompt=(),
        turns=turns,
        stop=stop,
        outcome=Outcome.GRADED,
        temperature=1.0,
        verdict=verdict,
    )


def value(function: RewardFn, trajectory: Trajectory) -> float:
    async def run() -> float:
        return await function(trajectory, None)

    return asyncio.run(run())


def graded(**passed: bool) -> Verdict:
    return Verdict(outcome=Outcome.GRADED, passed=passed)


def test_values() -> None:
    half = episode(graded(a=True, b=False), turn(), turn("bad"), turn(), turn())
    assert value(solved, half) == 0.0
    assert value(fraction, half) == 0.5
    assert value(well_formed, half) == 0.75
    assert value(solved, episode(graded(a=True))) == 1.0
    assert value(solved, episode(graded())) == 0.0
    assert value(submitted, episode(None, stop=Stop.MAX_TURNS)) == 0.0
    failed = Verdict(outcome=Outcome.AGENT_FAILURE, passed={"a": True})
    assert value(fraction, episode(failed)) == 0.0


def test_the_total_is_the_weighted_sum_of_the_parts() -> None:
    rewards = {
        "tests_fraction": Weighted(reward=fraction, weight=2.0),
        "well_formed": Weighted(reward=well_formed, weight=-0.5),
    }
    scored = asyncio.run(score(episode(graded(a=True, b=False), turn()), None, Scheme(rewards)))
    reward = scored.reward
    assert reward is not None and reward.parts == {"tests_fraction": 0.5, "well_formed": 1.0}
    assert reward.total == 0.5


@pytest.mark.parametrize("verdict", [None, Verdict(outcome=Outcome.INFRA_FAILURE, reason="no box")])
def test_no_verdict_is_no_reward(verdict: Verdict | None) -> None:
    with pytest.raises(GraderError, match="has no verdict"):
        asyncio.run(score(episode(verdict), None, Scheme({"x": Weighted(reward=solved)})))


def test_an_exception_or_nan_is_an_infra_error() -> None:
    async def broken(trajectory: Trajectory, box: Sandbox | None) -> float:
        raise ZeroDivisionError("oops")

    async def nan(trajectory: Trajectory, box: Sandbox | None) -> float:
        return float("nan")

    for function, said in ((broken, "reward x: ZeroDivisionError: oops"), (nan, "nan is not")):
        with pytest.raises(RewardError, match=said) as caught:
            asyncio.run(score(episode(graded()), None, Scheme({"x": Weighted(reward=function)})))
        assert isinstance(caught.value, InfraError)


def test_registries() -> None:
    rows = {row.name: row for row in REWARDS.describe()}
    assert rows["tests_pass"].origin == "palestra" and rows["tests_pass"].summary
    assert REWARDS.find("tests_pass") is solved
    with pytest.raises(UserError, match="no reward 'x'; there are: tests_pass"):
        REWARDS.find("x")
    names = {row.name for row in ENVIRONMENTS.describe()}
    assert {"palestra/Repair-v0", "palestra/Complete-v0"} <= names
    with pytest.raises(UserError, match="no environment 'x'"):
        ENVIRONMENTS.find("x")
