"""What adapters share: episodes that other people's code plays and judges.

Whatever that code does wrong is an ``InfraError``: such an episode has no reward and is played
again. What it says is text for the policy, like the output of any tool.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol

from palestra.envs.base import Env
from palestra.rewards.environment import REWARD, environment
from palestra.rewards.score import Weighted
from palestra.rl.errors import InfraError
from palestra.rl.types import (
    CheckRunner,
    Json,
    Message,
    Observation,
    Outcome,
    Sandbox,
    Task,
    Turn,
    Verdict,
)

STEP_S = 60.0
"""Seconds that one answer of the other side may take (our default)."""


class HostError(InfraError):
    """The code or the server that plays an environment failed, or did not answer in time."""


class Session(Protocol):
    """One episode on the other side."""

    async def act(self, name: str, arguments: Mapping[str, Json]) -> Observation:
        """Answer a call; raises ``ToolError`` for wrong use and ``HostError`` for a fault."""

    async def rewards(self) -> Mapping[str, float]:
        """What the episode is worth: the total as ``reward``, and any named parts of it."""

    async def close(self) -> None:
        """Let go of it; must not raise."""


class Hosted(Env):
    """An environment whose episodes are sessions elsewhere; the box stays empty."""

    rewards: ClassVar[Mapping[str, Weighted]] = {"environment": Weighted(reward=environment)}

    def __init__(self, run_checks: CheckRunner, *, system_prompt: str | None = None) -> None:
        super().__init__(run_checks, system_prompt=system_prompt)
        self._sessions: dict[int, Session] = {}  # an episode is known by its box

    @abstractmethod
    async def start(self, task: Task) -> Session:
        """Begin an episode; raises ``TaskError`` when the task is at fault."""

    async def setup(self, task: Task, box: Sandbox) -> None:
        """See ``Env.setup``."""
        self._sessions[id(box)] = await self.start(task)

    async def apply(
        self, task: Task, name: str, arguments: Mapping[str, Json], box: Sandbox
    ) -> Observation:
        """See ``Env.apply``."""
        return await self._sessions[id(box)].act(name, arguments)

    async def judge(self, task: Task, turns: Sequence[Turn], box: Sandbox) -> Verdict:
        """It passed with a reward of 1 or more (our default; such environments do not say)."""
        rewards = await self._sessions[id(box)].rewards()
        for name, value in rewards.items():
            if not math.isfinite(value):
                raise HostError(f"{self.name}: {name} is {value}, which is no finite number")
        passed = {"environment": rewards[REWARD] >= 1.0}
        return Verdict(outcome=Outcome.GRADED, passed=passed, rewards=rewards)

    async def teardown(self, task: Task, box: Sandbox) -> None:
        """See ``Env.teardown``."""
        session = self._sessions.pop(id(box), None)
        if session is not None:
            await session.close()


def hosted_task(
    *, env: str, kind: str, number: int, prompt: str, labels: Mapping[str, str] | None = None
) -> Task:
    """The task ``number`` of an environment that judges by itself: no files and no checks."""
    return Task(
        id=f"{env}/{number}",
        source=env,
        kind=kind,
        prompt=prompt,
        files={},
        reference={},
        artifacts=(),
        hidden=(),
        labels=labels or {},
    )


def told(messages: Sequence[Message]) -> str:
    """The words of some messages, for a policy that is told them as one text."""
    return "\n\n".join(message.content for message in messages if message.content)
