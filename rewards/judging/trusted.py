"""Opinions that count only while their judge is known to judge well."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from palestra.rl.errors import Abstain
from palestra.rl.types import GroupRewardFn, Reward, Trajectory


@dataclass(frozen=True)
class Trusted:
    """Implements ``rl.types.GroupRewardFn``: what ``reward`` says in the steps that ``trusts`` says
    yes to; in others it abstains, and nobody is asked.

    Example: ``Trusted(PairwiseCritic(...), lambda step: accuracy >= 0.6)``
    """

    reward: GroupRewardFn
    trusts: Callable[[int], bool]

    async def __call__(self, trajectories: list[Trajectory]) -> list[Reward]:
        """As ``reward``; raises ``Abstain`` where its judge is not trusted."""
        if not self.trusts(trajectories[0].step):
            raise Abstain("the critic's accuracy on verified pairs is below rl.critic.min_accuracy")
        return await self.reward(trajectories)
