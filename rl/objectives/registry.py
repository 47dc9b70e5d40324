"""Objectives by name, and the policy loss that a configuration asks for.

A plugin is an entry point of the group ``palestra.objectives`` that names a callable; called with
the settings of the recipe it returns an ``Objective``, which must survive pickling.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from palestra.rl.config import RLConfig
from palestra.rl.errors import UserError
from palestra.rl.objectives.cispo import Cispo
from palestra.rl.objectives.config import PluginConfig
from palestra.rl.objectives.gspo import Gspo
from palestra.rl.objectives.k25 import K25
from palestra.rl.objectives.kl import KlPenalty
from palestra.rl.objectives.mirror_descent import MirrorDescent
from palestra.rl.objectives.mismatch import Correction
from palestra.rl.objectives.policy_loss import PolicyLoss
from palestra.rl.objectives.ppo_clip import PpoClip
from palestra.rl.objectives.reinforce import Reinforce
from palestra.rl.objectives.tokens import Objective
from palestra.rl.plugins import Registry

OURS: Mapping[str, Callable[..., Objective]] = {
    "k25": K25,
    "k15": MirrorDescent,
    "k2": MirrorDescent,
    "ppo_clip": PpoClip,
    "grpo": PpoClip,
    "dr_grpo": PpoClip,
    "reinforce_plus_plus": PpoClip,
    "dapo": PpoClip,
    "rloo": Reinforce,
    "gspo": Gspo,
    "cispo": Cispo,
}
OBJECTIVES: Registry[Callable[..., Objective]] = Registry("objective", "palestra.objectives", OURS)


def objective(config: RLConfig) -> Objective:
    """What ``rl.objective`` names, with its settings; raises ``UserError`` for a broken plugin."""
    chosen = config.objective
    if isinstance(chosen, PluginConfig):
        try:
            return OBJECTIVES.find(chosen.plugin)(**chosen.settings)
        except TypeError as error:
            raise UserError(f"rl.objective.settings of {chosen.plugin}: {error}") from error
    return OURS[chosen.name](**chosen.model_dump(exclude={"name", "reset_optimizer"}))


def policy_loss(config: RLConfig) -> PolicyLoss:
    """The objective with the correction and the penalty around it."""
    mismatch, kl = config.mismatch, config.kl
    correction = mismatch.correction and Correction(
        name=mismatch.correction, level=mismatch.level, low=mismatch.low, high=mismatch.high
    )
    return PolicyLoss(
        objective=objective(config),
        old_logprobs=config.old_logprobs,
        correction=correction or None,
        kl=KlPenalty(coef=kl.coef, type=kl.estimator) if kl.in_loss else None,
        kl_in_reward=kl.in_reward,
        reset_optimizer=getattr(config.objective, "reset_optimizer", False),
        mismatch_limit=mismatch.limit or None,
        on_mismatch=mismatch.on_limit,
    )
