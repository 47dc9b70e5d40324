"""Fixtures that any test may use."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
from hypothesis import HealthCheck, settings

from palestra.rl.types import (
    Message,
    Outcome,
    Reward,
    Stop,
    ToolCall,
    Trajectory,
    Turn,
    Verdict,
)

# On a machine that others use an example is slow, not wrong.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")

MakeTurn: TypeAlias = Callable[..., Turn]
MakeTrajectory: TypeAlias = Callable[..., Trajectory]


@pytest.fixture(scope="session")
def metric_names() -> list[str]:
    """The names in docs/metrics.md; what a run makes up is in capitals."""
    page = Path(__file__).resolve().parents[1] / "docs/metrics.md"
    cells = re.findall(r"^\| (`[^|]*`) \|", page.read_text(), re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


@pytest.fixture(scope="session")
def is_metric(metric_names: list[str]) -> Callable[[str], bool]:
    """Whether docs/metrics.md has a name."""
    forms = [re.sub(r"[A-Z]+", "[a-zA-Z0-9_/.-]+", name) for name in metric_names]
    return lambda name: any(re.fullmatch(form, name) for form in forms)


@pytest.fixture
def make_turn() -> MakeTurn:
    """Makes turns of three tokens with one call."""
    return turn


@pytest.fixture
def make_trajectory() -> MakeTrajectory:
    """Makes episodes that solved their task for a reward of 1; without a reward, broken ones."""
    return trajectory


def turn(reply: str = "I look.", *, observation: str = "ok", error: str = "") -> Turn:
    """A turn of three tokens with one call."""
    call = ToolCall(name="replace", arguments={"line": "3", "text": "    return x"})
    return Turn(
        context_ids=(1, 2),
        token_ids=(3, 4, 5),
        logprobs=(-0.1, -0.2, -0.3),
        version=0,
        message=Message(role="assistant", content=reply, calls=(call,)),
        observation=observation,
        error=error,
    )


def trajectory(
    name: str = "a",
    *,
    group: str = "g",
    step: int = 1,
    reward: float | None = 1.0,
    stop: Stop = Stop.SUBMITTED,
    turns: tuple[Turn, ...] | None = None,
    reason: str = "",
) -> Trajectory:
    """An episode that solved its task for a reward of 1; without a reward, one that we broke."""
    outcome = Outcome.INFRA_FAILURE if reward is None else Outcome.GRADED
    solved = reward == 1.0
    return Trajectory(
        id=name,
        group_id=group,
        task_id=f"task-{group}",
        step=step,
        prompt=(Message(role="user", content="Fix it."),),
        turns=(turn(),) if turns is None else turns,
        stop=stop,
        outcome=outcome,
        temperature=1.0,
        reward=None if reward is None else Reward(total=reward, parts={"tests_pass": reward}),
        verdict=Verdict(outcome=outcome, passed={"c#0": True, "c#1": solved}),
        reason=reason,
        seconds={"generate": 0.5},
    )
