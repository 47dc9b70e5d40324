"""The groups of a step with the advantages that its rewards make under the run's configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from pydantic import ValidationError

from palestra.deploy.dashboard import models
from palestra.deploy.dashboard.index import NO_REWARD
from palestra.rl.advantage import WHITE, advantages
from palestra.rl.config import RLConfig
from palestra.rl.presets import GROUP_RELATIVE, Rule, rule
from palestra.rl.types import Outcome, Reward, Stop


def line(row: Sequence[Any]) -> models.EpisodeLine:
    """A row of ``query.COLUMNS``."""
    return models.EpisodeLine(
        id=row[1],
        split=row[2] or "train",
        step=row[3],
        group_id=row[4],
        task_id=row[5],
        environment=row[6],
        outcome=Outcome(row[7]),
        stop=Stop(row[8]),
        solved=bool(row[9]),
        reward=None if row[10] == NO_REWARD else row[10],
        tokens=row[11],
        turns=row[12],
        errors=row[13],
        version=row[14],
        seconds=row[15],
        preview=row[17],
    )


def rule_of(config: Mapping[str, Any]) -> Rule:
    """How a run makes advantages; our default where its configuration cannot be read."""
    try:
        return rule(RLConfig.model_validate(config.get("rl", {})))
    except (ValidationError, KeyError):
        return Rule()


def groups_of(
    rows: Sequence[Sequence[Any]], shaped: Mapping[str, Reward], how: Rule
) -> list[models.GroupOf]:
    """Groups from the rows of a step, which are in the order of groups and ids."""
    grouped = [
        [_sibling(row, shaped) for row in own] for _, own in groupby(rows, key=lambda row: row[4])
    ]
    teaching = [group for group in grouped if _teaches(group, how)]
    found = advantages(
        [[s.shaped for s in group if s.shaped is not None] for group in teaching],
        how.adv_estimator,
        by_std=how.norm_adv_by_std,
        tau=how.tau,
    )
    values = {
        sibling.episode.id: value
        for group, own in zip(teaching, found, strict=True)
        for sibling, value in zip((s for s in group if s.shaped is not None), own, strict=True)
    }
    return [
        models.GroupOf(
            id=group[0].episode.group_id,
            task_id=group[0].episode.task_id,
            step=group[0].episode.step,
            teaches=any(values.get(s.episode.id) for s in group),
            siblings=[s.model_copy(update={"advantage": values.get(s.episode.id)}) for s in group],
        )
        for group in grouped
    ]


def list_of(
    step: int, how: Rule, groups: list[models.GroupOf], progress: models.Progress
) -> models.GroupList:
    """The answer for a step."""
    return models.GroupList(
        step=step,
        estimator=how.adv_estimator,
        by_std=how.norm_adv_by_std,
        whitened=how.adv_estimator in WHITE,
        groups=groups,
        progress=progress,
    )


def _sibling(row: Sequence[Any], shaped: Mapping[str, Reward]) -> models.Sibling:
    episode = line(row)
    reward = shaped.get(episode.id)
    return models.Sibling(
        episode=episode,
        parts=json.loads(row[16]),
        shaping=dict(reward.shaping) if reward else {},
        shaped=reward.total if reward else episode.reward,
        advantage=None,
    )


def _teaches(group: Sequence[models.Sibling], how: Rule) -> bool:
    rewards = [s.shaped for s in group if s.shaped is not None]
    if len(rewards) < (2 if how.adv_estimator in GROUP_RELATIVE else 1):
        return False
    return not (how.zero_variance_filter and max(rewards) == min(rewards))
