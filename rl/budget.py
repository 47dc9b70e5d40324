"""Budget control (K2 report section 3.2.3): what an episode may generate, and what excess costs."""

from __future__ import annotations

from dataclasses import replace

from palestra.rl.config import BudgetConfig
from palestra.rl.types import Reward, Stop, Trajectory


def budget_of(config: BudgetConfig, kind: str) -> int:
    """Generated tokens allowed per episode of this task kind."""
    return config.by_kind.get(kind, config.default)


def penalised(trajectory: Trajectory, penalty: float) -> Trajectory:
    """Take ``penalty`` off the reward of an episode that ran over its budget, and say so."""
    if trajectory.stop is not Stop.OVER_BUDGET or trajectory.reward is None or not penalty:
        return trajectory
    reward = trajectory.reward
    parts = {**reward.parts, "over_budget": -penalty}
    return replace(trajectory, reward=Reward(total=reward.total - penalty, parts=parts))
