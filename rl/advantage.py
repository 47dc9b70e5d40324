"""Group rewards to advantages, and trajectories to training samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, islice
from statistics import fmean, pstdev

from palestra.rl.objectives.config import AdvEstimator
from palestra.rl.presets import GROUP_RELATIVE, Rule
from palestra.rl.types import Group, Routing, Sample, Trajectory

EPSILON = 1e-6
"""Added to standard deviations."""
RETURNS = frozenset({"none", "reinforce_plus_plus"})
"""Estimators that see what each token earns from there on; the others see the sum."""
WHITE = frozenset({"reinforce_plus_plus", "reinforce_plus_plus_baseline"})
"""Estimators whose advantages are made white over the tokens of the batch."""


def centred(rewards_G: Sequence[float], *, by_std: bool = False) -> list[float]:
    """``r - mean(r)`` (K1.5 Eq. 3, K2.5 Eq. 1); ``by_std`` divides by the standard deviation as
    GRPO does. A uniform group has no signal: all zeros."""
    mean = sum(rewards_G) / len(rewards_G)
    deviations = [reward - mean for reward in rewards_G]
    if not by_std:
        return deviations
    std = (sum(d * d for d in deviations) / len(deviations)) ** 0.5
    return [d / (std + EPSILON) for d in deviations]


def leave_one_out(rewards_G: Sequence[float]) -> list[float]:
    """Each reward less the mean of its siblings' (RLOO, arXiv 2402.14740)."""
    total, others = sum(rewards_G), len(rewards_G) - 1
    return [reward - (total - reward) / others for reward in rewards_G]


def above_log_z(rewards_G: Sequence[float], tau: float) -> list[float]:
    """``r - tau log mean(e^(r/tau))``: K1.5's estimate of tau log Z (section 2.3.2)."""
    top = max(rewards_G)
    log_z = top + tau * math.log(fmean(math.exp((reward - top) / tau) for reward in rewards_G))
    return [reward - log_z for reward in rewards_G]


def returns_to_go(total: float, penalties_T: Sequence[float]) -> list[float]:
    """What each token earns from there on: ``total`` less none of the penalties before it, which
    ``total`` holds already (REINFORCE++, arXiv 2501.03262: ``r - beta * sum_{i >= t} KL_i``)."""
    before = list(accumulate(penalties_T, initial=0.0))[:-1]
    return [total + paid for paid in before]


def whitened(values_ST: Sequence[Sequence[float]]) -> list[list[float]]:
    """Mean 0 and standard deviation 1 over the tokens of all samples (REINFORCE++)."""
    everything = [value for values in values_ST for value in values]
    if not everything:
        return [[] for _ in values_ST]
    mean = fmean(everything)
    std = math.sqrt(fmean((value - mean) ** 2 for value in everything))
    return [[(value - mean) / (std + EPSILON) for value in values] for values in values_ST]


def advantages(
    rewards_GK: Sequence[Sequence[float]], estimator: AdvEstimator, *, by_std: bool, tau: float
) -> list[list[float]]:
    """One advantage per reward, group by group; those of REINFORCE++ are not white yet.

    ``by_std`` divides by each group's own standard deviation.
    """
    match estimator:
        case "mean" | "reinforce_plus_plus_baseline":
            return [centred(rewards, by_std=by_std) for rewards in rewards_GK]
        case "leave_one_out":
            found = [leave_one_out(rewards) for rewards in rewards_GK]
        case "log_z":
            found = [above_log_z(rewards, tau) for rewards in rewards_GK]
        case "none" | "reinforce_plus_plus":
            found = [list(rewards) for rewards in rewards_GK]
    if not by_std:
        return found
    return [
        [value / (pstdev(rewards) + EPSILON) for value in values]
        for rewards, values in zip(rewards_GK, found, strict=True)
    ]


def samples(
    groups: Sequence[Group], rule: Rule, penalties: Mapping[str, Sequence[float]] | None = None
) -> list[list[Sample]]:
    """Samples of each group that teaches something; infrastructure failures are in neither the
    batch nor the baseline.

    Without siblings a group-relative estimator has no baseline, and a group whose rewards are all
    equal is left out under ``rule.zero_variance_filter``. ``penalties`` says, by trajectory id, how
    much of the reward was taken off at each generated token.
    """
    played = [group.trainable for group in groups]
    played = [members for members in played if _teaches(members, rule)]
    found = advantages(
        [rewards_of(members) for members in played],
        rule.adv_estimator,
        by_std=rule.norm_adv_by_std,
        tau=rule.tau,
    )
    everyone = [t for members in played for t in members]
    values = [value for own in found for value in own]
    per_token = [
        returns_to_go(value, penalties[t.id])
        if penalties and rule.adv_estimator in RETURNS
        else [value] * t.generated
        for t, value in zip(everyone, values, strict=True)
    ]
    if rule.adv_estimator in WHITE:
        per_token = whitened(per_token)
    made = map(to_sample, everyone, per_token)
    return [list(islice(made, len(members))) for members in played]


def rewards_of(trajectories: Sequence[Trajectory]) -> list[float]:
    """Their total rewards, where they have one."""
    return [t.reward.total for t in trajectories if t.reward is not None]


def _teaches(members: Sequence[Trajectory], rule: Rule) -> bool:
    rewards = rewards_of(members)
    if len(rewards) < (2 if rule.adv_estimator in GROUP_RELATIVE else 1):
        return False
    return not (rule.zero_variance_filter and max(rewards) == min(rewards))


def recorded(trajectory: Trajectory) -> list[float]:
    """The log-probabilities that the generated tokens were sampled with."""
    return [logprob for turn in trajectory.turns for logprob in turn.logprobs]


def to_sample(trajectory: Trajectory, advantages: Sequence[float]) -> Sample:
    """The exact ids of a trajectory; only sampled tokens carry mask, log-probability, advantage.
    ``advantages`` has one entry per generated token.
    """
    ids: list[int] = []
    given = iter(advantages)
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
        advantages=tuple(next(given) if m else 0.0 for m in mask),
        ptx=(0.0,) * len(ids),
        temperature=trajectory.temperature,
        routing=_routing(trajectory),
    )


def _routing(trajectory: Trajectory) -> Routing | None:
    """The records of all turns as one; None where a turn has none."""
    records = [turn.routing for turn in trajectory.turns if turn.routing]
    if not records or len(records) < len(trajectory.turns):
        return None
    return replace(records[0], experts=b"".join(record.experts for record in records))
