"""Shaping: what is put on top of the raw rewards of siblings before advantages are computed.

A shaper looks at the episodes of a group that have a reward and says what each of them gains or
loses; ``Reward.shaping`` keeps it under the shaper's name, beside the parts of the raw reward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean

from palestra.rl.budget import over_budget, overlong
from palestra.rl.config import RLConfig
from palestra.rl.length_penalty import length_rewards, weight_of
from palestra.rl.toggle import over_problem_budget, phase_of
from palestra.rl.types import Group, Reward, Trajectory


@dataclass(frozen=True, slots=True, kw_only=True)
class Shaper:
    """``amounts`` gets a group without the lost episodes and returns a number for each episode.

    Example: ``Shaper(name="length", amounts=lambda group: length_rewards(group.trajectories))``
    """

    name: str
    amounts: Callable[[Group], Sequence[float]]


def shapers(
    step: int,
    config: RLConfig,
    limit_of: Callable[[str], int],
    problem_budget: Callable[[Group], float],
) -> list[Shaper]:
    """The shapers that are on in ``step``, in their order: what takes a share of the reward before
    what is added to it, and last what may replace it.

    ``limit_of`` is the most that an episode of a task id may generate; ``problem_budget`` is what
    Toggle allows the group's problem.
    """
    on: list[Shaper] = []
    if config.toggle.enable and phase_of(step, config.toggle.period) == 0:
        on.append(
            Shaper(
                name="toggle",
                amounts=lambda group: over_problem_budget(
                    group.trajectories, problem_budget(group), config.toggle.min_accuracy
                ),
            )
        )
    if weight := weight_of(step, config.length_penalty):
        on.append(
            Shaper(
                name="length",
                amounts=lambda group: [weight * x for x in length_rewards(group.trajectories)],
            )
        )
    if config.overlong.buffer_len:
        on.append(
            Shaper(
                name="overlong",
                amounts=lambda group: overlong(
                    group.trajectories, limit_of(group.task_id), config.overlong
                ),
            )
        )
    if config.budget.penalty or config.budget.penalty_mode == "replace":
        on.append(
            Shaper(
                name="over_budget",
                amounts=lambda group: over_budget(group.trajectories, config.budget),
            )
        )
    return on


def shaped(group: Group, shapers: Sequence[Shaper]) -> Group:
    """The group after every shaper, each of which sees what those before it have made. Lost
    episodes have no reward and get none; an amount of 0 leaves no trace."""
    played = replace(group, trajectories=group.trainable)
    for shaper in shapers:
        amounts_G = shaper.amounts(played)
        changed = map(partial(_plus, shaper.name), played.trajectories, amounts_G)
        played = replace(played, trajectories=tuple(changed))
    by_id = {t.id: t for t in played.trajectories}
    return replace(group, trajectories=tuple(by_id.get(t.id, t) for t in group.trajectories))


def shaping_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """What each shaper has put on the rewards of a step, as a mean over the episodes with one."""
    rewards = [t.reward for group in groups for t in group.trainable if t.reward is not None]
    names = sorted({name for reward in rewards for name in reward.shaping})
    return {
        f"shaping/{name}/mean": fmean(reward.shaping.get(name, 0.0) for reward in rewards)
        for name in names
    }


def _plus(name: str, trajectory: Trajectory, amount: float) -> Trajectory:
    reward: Reward | None = trajectory.reward
    if reward is None or not amount:
        return trajectory
    return replace(trajectory, reward=reward.plus(name, amount))
