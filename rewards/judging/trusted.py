"""Opinions that count only while their judge is known to judge well."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from palestra.rl.errors import Abstain
from palestra.rl.types import GroupRewardFn, Reward, RewardFn, Sandbox, Trajectory


@dataclass(frozen=True)
class Trusted:
    """Implements ``rl.types.RewardFn``: what ``reward`` says in the steps that ``trusts`` says yes
    to; in others it abstains, and nobody is asked.

    Example: ``Trusted(JudgedFaithfulness(arbiter=arbiter), lambda step: accuracy >= 0.6)``
    """

    reward: RewardFn
    trusts: Callable[[int], bool]

    async def __call__(self, trajectory: Trajectory, box: Sandbox | None) -> float:
        """As ``reward``; raises ``Abstain`` where its judge is not trusted."""
        _ensure(self.trusts(trajectory.step))
        return await self.reward(trajectory, box)


@dataclass(frozen=True)
class TrustedGroup:
    """The same for a ``rl.types.GroupRewardFn``."""

    reward: GroupRewardFn
    trusts: Callable[[int], bool]

    async def __call__(self, trajectories: list[Trajectory]) -> list[Reward]:
        """As of ``Trusted``."""
        _ensure(self.trusts(trajectories[0].step))
        return await self.reward(trajectories)


def _ensure(trusted: bool) -> None:
    if not trusted:
        raise Abstain("the critic's accuracy on verified pairs is below rl.critic.min_accuracy")
