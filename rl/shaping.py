"""Shaping: what is put on top of the raw rewards of siblings before advantages are computed.

A shaper looks at the episodes of a group that have a reward and says what each of them is worth
now; ``Reward.shaping`` keeps the difference under the shaper's name, beside the parts of the raw
reward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TypeAlias

from palestra.rewards.length import length_rewards
from palestra.rl.budget import overlong, penalised
from palestra.rl.config import BudgetConfig, OverlongConfig, RLConfig, ToggleConfig
from palestra.rl.length_penalty import weight_of
from palestra.rl.toggle import limited, phase_of
from palestra.rl.types import Group

Rule: TypeAlias = Callable[[Group, Sequence[float]], Sequence[float]]
"""(a group without the lost episodes, their rewards so far) -> their rewards, in the same order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shaper:
    """A rule and the name under which rewards keep what it has changed.

    Example: ``Shaper(name="half", rule=lambda group, rewards: [r / 2 for r in rewards])``
    """

    name: str
    rule: Rule


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
        on.append(Shaper(name="toggle", rule=_toggle(config.toggle, problem_budget)))
    if weight := weight_of(step, config.length_penalty):
        on.append(Shaper(name="length", rule=_length(weight)))
    if config.overlong.buffer_len:
        on.append(Shaper(name="overlong", rule=_overlong(config.overlong, limit_of)))
    if config.budget.penalty or config.budget.penalty_mode == "replace":
        on.append(Shaper(name="over_budget", rule=_over_budget(config.budget)))
    return on


def shaped(group: Group, shapers: Sequence[Shaper]) -> Group:
    """The group after every shaper, each of which sees what those before it have made. Lost
    episodes have no reward and get none; no difference leaves no trace."""
    played = replace(group, trajectories=group.trainable)
    rewards = {t.id: t.reward for t in played.trajectories if t.reward is not None}
    for shaper in shapers:
        totals = shaper.rule(played, [reward.total for reward in rewards.values()])
        for name, total in zip(rewards, totals, strict=True):
            if total != rewards[name].total:
                rewards[name] = rewards[name].shaped(shaper.name, total)
    trajectories = (replace(t, reward=rewards.get(t.id)) for t in group.trajectories)
    return replace(group, trajectories=tuple(trajectories))


def shaping_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """What each shaper has put on the rewards of a step, as a mean over the episodes with one."""
    rewards = [t.reward for group in groups for t in group.trainable if t.reward is not None]
    names = sorted({name for reward in rewards for name in reward.shaping})
    return {
        f"shaping/{name}/mean": fmean(reward.shaping.get(name, 0.0) for reward in rewards)
        for name in names
    }


def _toggle(config: ToggleConfig, problem_budget: Callable[[Group], float]) -> Rule:
    def rule(group: Group, rewards: Sequence[float]) -> Sequence[float]:
        budget = problem_budget(group)
        return limited(group.trajectories, rewards, budget, config.min_accuracy)

    return rule


def _length(weight: float) -> Rule:
    def rule(group: Group, rewards: Sequence[float]) -> Sequence[float]:
        lengths = length_rewards(group.trajectories)
        return [r + weight * more for r, more in zip(rewards, lengths, strict=True)]

    return rule


def _overlong(config: OverlongConfig, limit_of: Callable[[str], int]) -> Rule:
    def rule(group: Group, rewards: Sequence[float]) -> Sequence[float]:
        less = overlong(group.trajectories, limit_of(group.task_id), config)
        return [r + more for r, more in zip(rewards, less, strict=True)]

    return rule


def _over_budget(config: BudgetConfig) -> Rule:
    return lambda group, rewards: penalised(group.trajectories, rewards, config)
