"""Rewards computed again over what a run has recorded: the loop of somebody who writes one.

Nothing is played and nothing is graded again: episodes and verdicts are those of the journal, which
is only read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from statistics import fmean

from palestra.envs.concurrency import bounded
from palestra.rewards.score import Scheme, rate, score
from palestra.rl.errors import PalestraError
from palestra.rl.types import LOST, Json, Reward, Stop, Trajectory

AT_ONCE = 32
SAME = 1e-9
"""Totals that differ by less are equal: parts may be summed in another order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescored:
    """A recorded episode, the reward that it has now, and why it has none.

    Example: ``Rescored(recorded=trajectory, now=Reward(total=1.1, parts={...}))``
    """

    recorded: Trajectory
    now: Reward | None
    abstained: Mapping[str, str]
    failed: str = ""

    @property
    def changed(self) -> bool:
        """Is the total another one, or there where there was none?"""
        before, now = self.recorded.reward, self.now
        if before is None or now is None:
            return before is not now
        return abs(before.total - now.total) > SAME

    def to_json(self) -> dict[str, Json]:
        """One line of ``--json``."""
        before, now = self.recorded.reward, self.now
        return {
            "id": self.recorded.id,
            "task_id": self.recorded.task_id,
            "old": before.total if before else None,
            "new": now.total if now else None,
            "old_parts": dict(before.parts) if before else {},
            "parts": dict(now.parts) if now else {},
            "abstained": dict(self.abstained),
            "reason": self.failed,
        }


def can_be_scored(trajectory: Trajectory) -> bool:
    """Was it played to its end and graded? One whose reward failed was."""
    return trajectory.outcome not in LOST or trajectory.stop is Stop.REWARD_ERROR


async def rescored(trajectories: Sequence[Trajectory], scheme: Scheme) -> list[Rescored]:
    """What ``scheme`` says of recorded episodes, in order of their ids; a reward that fails costs
    its own episode, one of siblings its group."""

    async def one(recorded: Trajectory) -> Rescored:
        try:
            scored = await score(recorded, None, scheme)
        except PalestraError as error:
            return Rescored(recorded=recorded, now=None, abstained={}, failed=str(error))
        return Rescored(recorded=recorded, now=scored.reward, abstained=scored.abstained)

    async def group(members: Sequence[Rescored]) -> list[Rescored]:
        whole = [m for m in members if not m.failed]
        siblings = [replace(m.recorded, reward=m.now, abstained=m.abstained) for m in whole]
        try:
            rated = await rate(siblings, scheme) if siblings else []
        except PalestraError as error:
            return [replace(m, now=None, failed=m.failed or str(error)) for m in members]
        now = {t.id: t for t in rated}
        return [
            replace(m, now=now[m.recorded.id].reward, abstained=now[m.recorded.id].abstained)
            if m.recorded.id in now
            else m
            for m in members
        ]

    ordered = sorted(trajectories, key=lambda t: (t.group_id, t.id))
    alone = await bounded(one, ordered, AT_ONCE)
    if not scheme.grouped:
        return alone
    groups = [list(g) for _, g in groupby(alone, key=lambda m: m.recorded.group_id)]
    return [member for members in await bounded(group, groups, AT_ONCE) for member in members]


def summary(found: Sequence[Rescored]) -> str:
    """How many changed, and the means before and now."""
    failed = sum(bool(one.failed) for one in found)
    changed = sum(one.changed for one in found)
    before = _mean(one.recorded.reward for one in found)
    now = _mean(one.now for one in found)
    return (
        f"{len(found)} episodes: {changed} changed, {failed} could not be scored; "
        f"mean reward {before} -> {now}"
    )


def part_lines(found: Sequence[Rescored]) -> list[tuple[str, str, str, str]]:
    """Each part: its mean before and now, and how often it abstained."""
    names = dict.fromkeys(
        name
        for one in found
        for reward in (one.recorded.reward, one.now)
        for name in [*(reward.parts if reward else ()), *one.abstained]
    )
    return [
        (
            name,
            _part_mean(name, (one.recorded.reward for one in found)),
            _part_mean(name, (one.now for one in found)),
            str(sum(name in one.abstained for one in found)),
        )
        for name in names
    ]


def _mean(rewards: Iterable[Reward | None]) -> str:
    totals = [reward.total for reward in rewards if reward]
    return f"{fmean(totals):.3f}" if totals else "-"


def _part_mean(name: str, rewards: Iterable[Reward | None]) -> str:
    values = [reward.parts[name] for reward in rewards if reward and name in reward.parts]
    return f"{fmean(values):.3f}" if values else "-"
