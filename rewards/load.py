"""``module:name`` to the reward that it names."""

from __future__ import annotations

from typing import cast

from palestra.rewards.kinds import AnyReward, RewardFactory
from palestra.rl.plugins import import_named


def load(spec: str) -> AnyReward | RewardFactory:
    """The function of ``module:function``; see ``import_named``."""
    return cast(RewardFactory, import_named("reward", spec))
