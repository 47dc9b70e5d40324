"""Learning-rate schedules as pure functions of the step."""

from __future__ import annotations

import math

from palestra.policies.config import LearnerConfig


def learning_rate(step: int, config: LearnerConfig) -> float:
    """The rate of optimizer step ``step`` (the first is 0).

    Warm-up-stable-decay is K2's pre-training schedule (section 2.5): linear warm-up, a constant
    stretch, cosine decay to a tenth.
    """
    warmup = min(1.0, (step + 1) / max(1, config.warmup_steps))
    return config.lr * warmup * _decay(step, config)


def _decay(step: int, config: LearnerConfig) -> float:
    if config.schedule == "constant" or not config.decay_steps:
        return 1.0
    start = config.warmup_steps + config.stable_steps if config.schedule == "wsd" else 0
    progress = min(1.0, max(0, step - start) / config.decay_steps)
    floor = config.min_lr_ratio
    if config.schedule == "linear":
        return max(floor, 1.0 - progress)
    return floor + (1.0 - floor) * (1.0 + math.cos(math.pi * progress)) / 2
