"""When K1.5's length penalty counts; the penalty itself is ``rewards.length``."""

from __future__ import annotations

from palestra.rl.config import LengthPenaltyConfig


def weight_of(step: int, config: LengthPenaltyConfig) -> float:
    """What the length reward counts for in ``step``: nothing during the warm-up, then always the
    same."""
    return config.coef if step > config.warmup_steps else 0.0
