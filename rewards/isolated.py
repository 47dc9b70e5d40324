"""Rewards of others run in processes of their own: late, crashed or swollen, they cost one sample.

This bounds mistakes, it is no jail: who installs a reward trusts it. Trajectories go there as JSON,
and what comes back is read as JSON of which only numbers count. One that asks a judge does so
through a ``door``.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from palestra.rewards.children import Children, NoAnswer
from palestra.rewards.judging.arbiter import Arbiter
from palestra.rewards.judging.door import door
from palestra.rewards.score import RewardError, number
from palestra.rewards.wire import packed, rewards_from
from palestra.rl.errors import Abstain
from palestra.rl.types import Reward, Sandbox, Trajectory


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Seconds for an episode, processes for each reward, and bytes of address space of each.

    Example: ``Limits(seconds=60.0, workers=2, memory=4 << 30)``
    """

    seconds: float
    workers: int
    memory: int


class _Isolated:
    """``spec`` is ``module:function``; ``name`` is what errors call it; ``arbiter`` is whom it asks
    for judgements, if anybody."""

    def __init__(
        self,
        name: str,
        spec: str,
        options: Mapping[str, object],
        limits: Limits,
        arbiter: Arbiter | None = None,
    ) -> None:
        # By these, as by those of a function, it is known who vouches for a reward.
        self.__module__, _, self.__qualname__ = spec.partition(":")
        self.arbiter = arbiter
        self._name = name
        self._seconds = limits.seconds
        plan = {
            "name": name,
            "spec": spec,
            "options": dict(options),
            "asks": arbiter is not None,
            "memory": limits.memory,
            "seconds": limits.seconds,
        }
        self._children = Children(
            [sys.executable, "-m", "palestra.rewards.worker", json.dumps(plan)],
            seconds=limits.seconds,
            children=limits.workers,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )

    async def close(self) -> None:
        """End the processes."""
        await self._children.close()

    async def _ask(self, trajectories: Sequence[Trajectory]) -> dict[str, Any]:
        seconds = self._seconds * len(trajectories)
        asked = self.arbiter
        try:
            async with door(asked, trajectories[0]) if asked else nullcontext("") as judge:
                line = await self._children.ask(packed(trajectories, judge), seconds)
            answer = json.loads(line)
        except (NoAnswer, ValueError) as error:
            raise RewardError(f"reward {self._name}: {error}") from error
        if not isinstance(answer, dict) or "error" in answer:
            said = answer["error"] if isinstance(answer, dict) else "no object"
            raise RewardError(f"reward {self._name}: {said}")
        if "abstain" in answer:
            raise Abstain(str(answer["abstain"]))
        return answer


class Isolated(_Isolated):
    """A reward of single episodes, run elsewhere.

    Example: ``Isolated("brief", "my_rewards:brief", {"most": 64}, limits)``
    """

    async def __call__(self, trajectory: Trajectory, box: Sandbox | None) -> float:
        """What the reward says; raises ``Abstain`` as it does, and ``RewardError``."""
        return number((await self._ask([trajectory])).get("value"))


class IsolatedGroup(_Isolated):
    """A reward of siblings, run elsewhere."""

    async def __call__(self, trajectories: list[Trajectory]) -> list[Reward]:
        """As of ``Isolated``, one reward for each."""
        return rewards_from((await self._ask(trajectories)).get("rewards"))
