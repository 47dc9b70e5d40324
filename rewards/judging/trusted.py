"""Opinions that count only while their judge is known to judge well."""

from __future__ import annotations

from collections.abc import Callable

from palestra.rewards.kinds import AnyReward, name_of
from palestra.rl.errors import Abstain
from palestra.rl.types import GroupRewardFn, Reward, RewardFn, Sandbox, Trajectory


class _Trusted:
    def __init__(self, reward: AnyReward, trusts: Callable[[int], bool]) -> None:
        # By these, as by those of a function, it is known who vouches for a reward.
        self.__module__, _, self.__qualname__ = name_of(reward).partition(":")
        self._trusts = trusts

    def _ensure(self, step: int) -> None:
        if not self._trusts(step):
            raise Abstain("the critic's accuracy on verified pairs is below rl.critic.min_accuracy")


class Trusted(_Trusted):
    """Implements ``rl.types.RewardFn``: what ``reward`` says in the steps that ``trusts`` says yes
    to; in others it abstains, and nobody is asked.

    Example: ``Trusted(JudgedFaithfulness(arbiter=arbiter), lambda step: accuracy >= 0.6)``
    """

    def __init__(self, reward: RewardFn, trusts: Callable[[int], bool]) -> None:
        super().__init__(reward, trusts)
        self.reward = reward

    async def __call__(self, trajectory: Trajectory, box: Sandbox | None) -> float:
        """As ``reward``; raises ``Abstain`` where its judge is not trusted."""
        self._ensure(trajectory.step)
        return await self.reward(trajectory, box)


class TrustedGroup(_Trusted):
    """The same for a ``rl.types.GroupRewardFn``."""

    def __init__(self, reward: GroupRewardFn, trusts: Callable[[int], bool]) -> None:
        super().__init__(reward, trusts)
        self.reward = reward

    async def __call__(self, trajectories: list[Trajectory]) -> list[Reward]:
        """As of ``Trusted``."""
        self._ensure(trajectories[0].step)
        return await self.reward(trajectories)
