"""Group rewards to advantages, and trajectories to training samples."""

from __future__ import annotations

from collections.abc import Sequence

from palestra.rl.types import Group, Sample, Trajectory


def centred(rewards_G: Sequence[float], *, by_std: bool = False) -> list[float]:
    """``r - mean(r)`` (K1.5 Eq. 3, K2.5 Eq. 1); ``by_std`` divides by the standard deviation as
    GRPO does. A uniform group has no signal: all zeros."""
    mean = sum(rewards_G) / len(rewards_G)
    deviations = [reward - mean for reward in rewards_G]
    if not by_std:
        return deviations
    std = (sum(d * d for d in deviations) / len(deviations)) ** 0.5
    return [d / (std + 1e-6) for d in deviations]


def samples(group: Group, *, by_std: bool = False) -> list[Sample]:
    """Samples of one group; infrastructure failures are in neither the batch nor the baseline.

    A group whose rewards are all equal yields nothing.
    """
    played = group.trainable
    rewards_G = [t.reward.total for t in played if t.reward is not None]
    if len(rewards_G) < 2 or max(rewards_G) == min(rewards_G):
        return []
    advantages_G = centred(rewards_G, by_std=by_std)
    return [to_sample(t, a) for t, a in zip(played, advantages_G, strict=True)]


def to_sample(trajectory: Trajectory, advantage: float) -> Sample:
    """The exact ids of a trajectory; only sampled tokens carry mask, log-probability, advantage."""
    ids: list[int] = []
    mask: list[bool] = []
    logprobs: list[float] = []
    for turn in trajectory.turns:
        context, reply = len(turn.context_ids), len(turn.token_ids)
        ids += [*turn.context_ids, *turn.token_ids]
        mask += [False] * context + [True] * reply
        logprobs += [0.0] * context + list(turn.logprobs)
    return Sample(
        token_ids=tuple(ids),
        loss_mask=tuple(mask),
        logprobs=tuple(logprobs),
        advantages=tuple(advantage if m else 0.0 for m in mask),
        ptx=(0.0,) * len(ids),
        temperature=trajectory.temperature,
    )
