"""Budget control (K2 report section 3.2.3): what an episode may generate, and what excess costs."""

from __future__ import annotations

from collections.abc import Sequence

from palestra.rl.config import BudgetConfig, OverlongConfig
from palestra.rl.types import Stop, Trajectory


def budget_of(config: BudgetConfig, kind: str) -> int:
    """Generated tokens allowed per episode of this task kind."""
    return config.by_kind.get(kind, config.default)


def penalised(
    played: Sequence[Trajectory], rewards: Sequence[float], config: BudgetConfig
) -> list[float]:
    """The rewards after the penalty of those that ran over their budget: taken off, or instead."""
    return [
        reward
        if t.stop is not Stop.OVER_BUDGET
        else -config.penalty + (reward if config.penalty_mode == "add" else 0.0)
        for t, reward in zip(played, rewards, strict=True)
    ]


def overlong(played: Sequence[Trajectory], limit: int, config: OverlongConfig) -> list[float]:
    """DAPO's soft overlong punishment (Eq. 13): 0 up to ``limit - buffer_len`` generated tokens,
    from there a straight line down to ``-penalty_factor`` at ``limit``."""
    free = limit - config.buffer_len
    return [
        -config.penalty_factor * min(1.0, max(0, t.generated - free) / config.buffer_len)
        for t in played
    ]
