"""Reward functions, weights and a rule turned into one ``Reward``; owns no reward function itself.

What is said of one episode comes first (``score``), what is said of siblings when all of them have
been played (``rate``). Nothing that fails becomes a number: it raises ``RewardError``.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Real

from palestra.rewards.compose import Rule, weighted
from palestra.rewards.kinds import AnyReward, is_group, is_single
from palestra.rewards.provenance import of_reward
from palestra.rl.errors import Abstain, InfraError, boundary
from palestra.rl.types import (
    GroupRewardFn,
    Provenance,
    Reward,
    RewardFn,
    Sandbox,
    Trajectory,
)


class RewardError(InfraError):
    """A reward could not be computed; the episode then has no reward, not a reward of 0."""


@dataclass(frozen=True, kw_only=True)
class Weighted:
    """A reward and what it counts for in the total. It has ``deadline`` seconds for each episode
    that it looks at; a run sets the deadline of those without.

    Example: ``Weighted(reward=tests_pass, weight=1.0)``
    """

    reward: AnyReward
    weight: float = 1.0
    deadline: float | None = None


@dataclass(frozen=True)
class Scheme:
    """What episodes are worth: the parts of their reward by name, and the rule that makes one
    number of them.

    Example: ``Scheme({"tests_pass": Weighted(reward=tests_pass)})``
    """

    parts: Mapping[str, Weighted]
    rule: Rule = weighted

    @cached_property
    def single(self) -> Sequence[tuple[str, RewardFn, float | None]]:
        """Name, reward and deadline of those of one episode."""
        return [
            (name, part.reward, part.deadline)
            for name, part in self.parts.items()
            if is_single(part.reward)
        ]

    @cached_property
    def grouped(self) -> Sequence[tuple[str, GroupRewardFn, float | None]]:
        """Name, reward and deadline of those of siblings."""
        return [
            (name, part.reward, part.deadline)
            for name, part in self.parts.items()
            if is_group(part.reward)
        ]

    @cached_property
    def weights(self) -> Mapping[str, float]:
        """What each part counts for."""
        return {name: part.weight for name, part in self.parts.items()}

    def lacks(self, trajectory: Trajectory) -> bool:
        """Has the group of an episode not been rated yet?"""
        parts = trajectory.reward.parts if trajectory.reward else {}
        return any(n not in parts and n not in trajectory.abstained for n, _, _ in self.grouped)


@dataclass(slots=True)
class _Said:
    """What rewards have said of one episode so far."""

    parts: dict[str, float]
    provenance: dict[str, Provenance]

    def reward(self, scheme: Scheme, rule: Rule) -> Reward | None:
        """Parts that are none of the scheme's count for nothing."""
        said = {name: self.parts[name] for name in scheme.parts if name in self.parts}
        total = rule(said, scheme.weights)
        if total is None:
            return None
        if not math.isfinite(total):
            raise RewardError(f"the parts {said} make {total}, which is not a finite number")
        return Reward(total=total, parts=self.parts, provenance=self.provenance)


async def score(trajectory: Trajectory, box: Sandbox | None, scheme: Scheme) -> Trajectory:
    """The episode with what the rewards of single episodes say; each of several rewards that the
    task's verifier wrote is a part for people, ``verifier/NAME``. Without any part that counts the
    reward is None. Where siblings are still to be rated, the total is a plain sum until then.

    Raises ``RewardError`` when a function raises anything of its own, is late, or returns what is
    no finite number; an error that is already ours passes through.
    """
    said = _Said({}, {})
    abstained: dict[str, str] = {}
    for name, reward, deadline in scheme.single:
        started = time.monotonic()
        try:
            async with boundary(RewardError, f"reward {name}"), asyncio.timeout(deadline):
                said.parts[name] = number(await reward(trajectory, box))
        except Abstain as why:
            abstained[name] = str(why)
        else:
            said.provenance[name] = of_reward(reward, trajectory, time.monotonic() - started)
    written = trajectory.verdict.rewards if trajectory.verdict else {}
    if len(written) > 1:
        said.parts |= {f"verifier/{name}": value for name, value in written.items()}
    rule = weighted if scheme.grouped else scheme.rule
    return replace(trajectory, reward=said.reward(scheme, rule), abstained=abstained)


async def rate(siblings: Sequence[Trajectory], scheme: Scheme) -> list[Trajectory]:
    """Scored siblings, in order, with what the rewards of groups say of them beside it. The parts
    of such a reward are parts for people, ``NAME/PART``. What a rating that was broken off has left
    with some of them is forgotten.

    Raises as ``score``, also when there is not one reward for each.
    """
    said = [_alone(trajectory, scheme) for trajectory in siblings]
    abstained: dict[str, str] = {}
    for name, reward, deadline in scheme.grouped:
        limit = None if deadline is None else deadline * len(siblings)
        started = time.monotonic()
        try:
            async with boundary(RewardError, f"reward {name}"), asyncio.timeout(limit):
                found = checked(await reward(list(siblings)), len(siblings))
        except Abstain as why:
            abstained[name] = str(why)
            continue
        seconds = (time.monotonic() - started) / len(siblings)
        for trajectory, own, more in zip(siblings, said, found, strict=True):
            own.parts[name] = number(more.total)
            own.provenance[name] = of_reward(reward, trajectory, seconds)
            own.parts |= {f"{name}/{part}": number(value) for part, value in more.parts.items()}
            own.provenance |= {f"{name}/{part}": by for part, by in more.provenance.items()}
    names = {name for name, _, _ in scheme.grouped}
    return [
        replace(
            t,
            reward=own.reward(scheme, scheme.rule),
            abstained={n: why for n, why in t.abstained.items() if n not in names} | abstained,
        )
        for t, own in zip(siblings, said, strict=True)
    ]


def _alone(trajectory: Trajectory, scheme: Scheme) -> _Said:
    """What was said of an episode by itself."""
    names = {name for name, _, _ in scheme.grouped}
    reward = trajectory.reward or Reward(total=0.0, parts={})
    kept = [part for part in reward.parts if part.partition("/")[0] not in names]
    return _Said(
        {part: reward.parts[part] for part in kept},
        {part: by for part, by in reward.provenance.items() if part in kept},
    )


def number(value: object) -> float:
    """What a reward returned as a finite float; raises ``ValueError`` for anything else."""
    if not isinstance(value, Real):
        raise ValueError(f"a {type(value).__name__} is not a number")
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise ValueError(f"{found} is not a finite number")
    return found


def checked(rewards: object, count: int) -> list[Reward]:
    """What a reward of groups returned: ``count`` rewards of finite numbers; raises
    ``ValueError``."""
    if not isinstance(rewards, list) or len(rewards) != count:
        raise ValueError(f"not a list of {count} rewards")
    for reward in rewards:
        if not isinstance(reward, Reward):
            raise ValueError(f"a {type(reward).__name__} is not a Reward")
        for value in (reward.total, *reward.parts.values()):
            number(value)
    return rewards
