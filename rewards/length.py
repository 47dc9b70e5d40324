"""K1.5's length penalty (report section 2.3.3): among siblings, short answers are worth more."""

from __future__ import annotations

from collections.abc import Sequence

from palestra.rl.types import Reward, Trajectory


def length_rewards(played: Sequence[Trajectory]) -> list[float]:
    """``lambda_i = 0.5 - (len_i - min) / (max - min)`` over the siblings; a wrong answer gets
    ``min(0, lambda_i)``, and all get 0 when they are of one length.

    Lengths are generated tokens; an answer is right when every hidden check passed.
    """
    lengths = [t.generated for t in played]
    short, long = min(lengths, default=0), max(lengths, default=0)
    if short == long:
        return [0.0] * len(played)
    rewards = [0.5 - (length - short) / (long - short) for length in lengths]
    return [
        reward if t.solved else min(0.0, reward) for t, reward in zip(played, rewards, strict=True)
    ]


async def length(trajectories: list[Trajectory]) -> list[Reward]:
    """K1.5's length reward among siblings, in [-0.5, 0.5]: above 0 for short right answers only."""
    return [Reward(total=value, parts={}) for value in length_rewards(trajectories)]
