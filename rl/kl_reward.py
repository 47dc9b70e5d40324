"""KL divergence from the frozen reference, taken off the reward token by token.

Every generated token costs ``coef`` times an estimate (Schulman 2020) of KL(pi_old || reference),
with ``d = log pi_old - log reference``. ``log pi_old`` is what the engine recorded when it sampled
the token; the learner's frozen copy gives the other, at the same temperature. With k1, whose
estimate is ``d``, the policy gradient is that of ``E[reward] - coef * KL``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from palestra.rl.advantage import recorded, to_sample
from palestra.rl.config import KlConfig
from palestra.rl.objectives.config import KlType
from palestra.rl.shaping import Shaper, shaped
from palestra.rl.types import Group, Trainer

Penalties: TypeAlias = Mapping[str, Sequence[float]]
"""By trajectory id: what each of its generated tokens costs."""

MAX_LOG_RATIO = 20.0
"""Above it the ratio in k3 is taken as exp(20), as in the loss."""


async def kl_penalties(groups: Sequence[Group], config: KlConfig, trainer: Trainer) -> Penalties:
    """Of every trajectory with a reward; empty where the reward holds no KL."""
    if not config.in_reward:
        return {}
    played = [trajectory for group in groups for trajectory in group.trainable]
    scored = await trainer.reference_logprobs([to_sample(t, [0.0] * t.generated) for t in played])
    return {
        t.id: [
            config.coef * estimate(own - theirs, config.estimator)
            for own, theirs in zip(recorded(t), reference, strict=True)
        ]
        for t, reference in zip(played, scored, strict=True)
    }


def estimate(difference: float, kind: KlType) -> float:
    """Of one token, from ``log pi_old - log reference``; see ``rl.objectives.kl``."""
    match kind:
        case "k1":
            return difference
        case "k2":
            return difference * difference / 2
        case "k3":
            return math.expm1(min(-difference, MAX_LOG_RATIO)) + difference


def less_kl(groups: Sequence[Group], penalties: Penalties) -> list[Group]:
    """Every reward less the penalties of its tokens, which it keeps under the name ``kl``."""
    if not penalties:
        return list(groups)

    def rule(group: Group, rewards: Sequence[float]) -> list[float]:
        costs = (sum(penalties[t.id]) for t in group.trajectories)
        return [reward - cost for reward, cost in zip(rewards, costs, strict=True)]

    return [shaped(group, [Shaper(name="kl", rule=rule)]) for group in groups]


def kl_metrics(penalties: Penalties, config: KlConfig) -> dict[str, float]:
    """The estimate as a mean over generated tokens, without its weight."""
    costs = [cost for own in penalties.values() for cost in own]
    if not costs:
        return {}
    return {"actor/reward_kl_penalty": sum(costs) / len(costs) / config.coef}
