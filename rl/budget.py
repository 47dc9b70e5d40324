"""Budget control (K2 report section 3.2.3): what an episode may generate, and what excess costs."""

from __future__ import annotations

from collections.abc import Sequence

from palestra.rl.config import BudgetConfig, OverlongConfig
from palestra.rl.types import Stop, Trajectory


def budget_of(config: BudgetConfig, kind: str) -> int:
    """Generated tokens allowed per episode of this task kind."""
    return config.by_kind.get(kind, config.default)


def over_budget(played: Sequence[Trajectory], config: BudgetConfig) -> list[float]:
    """What episodes that ran over their budget lose: the penalty, or all they have and it."""
    return [
        -config.penalty - (_total(t) if config.penalty_mode == "replace" else 0.0)
        if t.stop is Stop.OVER_BUDGET
        else 0.0
        for t in played
    ]


def overlong(played: Sequence[Trajectory], limit: int, config: OverlongConfig) -> list[float]:
    """DAPO's soft overlong punishment (Eq. 13): 0 up to ``limit - buffer_len`` generated tokens,
    from there a straight line down to ``-penalty_factor`` at ``limit``."""
    free = limit - config.buffer_len
    return [
        -config.penalty_factor * min(1.0, max(0, t.generated - free) / config.buffer_len)
        for t in played
    ]


def _total(trajectory: Trajectory) -> float:
    return trajectory.reward.total if trajectory.reward else 0.0
