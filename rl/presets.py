"""What each objective's source says about advantages and loss aggregation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from palestra.rl.config import RLConfig
from palestra.rl.objectives.config import AdvEstimator, LossAggMode

GROUP_RELATIVE = frozenset({"mean", "leave_one_out", "log_z"})
"""Estimators that need siblings, and give 0 to each of a uniform group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How the rewards of a step become advantages, and its losses one number.

    ``tau`` is that of the estimator ``log_z``; ``scale_factor`` the divisor of
    ``seq-mean-token-sum-norm``.
    """

    adv_estimator: AdvEstimator = "mean"
    norm_adv_by_std: bool = False
    loss_agg_mode: LossAggMode = "token-mean"
    zero_variance_filter: bool = True
    tau: float = 1.0
    scale_factor: int = 1


_REGRESSION = Rule(loss_agg_mode="prompt-mean-seq-mean", zero_variance_filter=False)
_GRPO = Rule(norm_adv_by_std=True, loss_agg_mode="seq-mean-token-mean")

PUBLISHED: Mapping[str, Rule] = {
    "k25": Rule(),
    "k15": _REGRESSION,
    "k2": _REGRESSION,
    "ppo_clip": Rule(),
    "grpo": _GRPO,
    "dr_grpo": Rule(loss_agg_mode="seq-mean-token-sum-norm"),
    "reinforce_plus_plus": Rule(adv_estimator="reinforce_plus_plus"),
    "dapo": Rule(norm_adv_by_std=True),
    "rloo": Rule(adv_estimator="leave_one_out", loss_agg_mode="seq-mean-token-sum"),
    "gspo": _GRPO,
    "cispo": Rule(norm_adv_by_std=True),
    "plugin": Rule(),
}


def rule(config: RLConfig) -> Rule:
    """As published for the objective, with what the configuration says otherwise.

    A uniform group stays in the batch where its loss is not 0: under an estimator that does not
    compare siblings, and under a KL penalty. K2.5's regulariser alone does not keep it (ours).
    """
    published = PUBLISHED[config.objective.name]
    estimator = config.adv_estimator or published.adv_estimator
    no_signal = estimator in GROUP_RELATIVE and not config.kl.coef
    return Rule(
        adv_estimator=estimator,
        norm_adv_by_std=_or(
            config.norm_adv_by_std, published.norm_adv_by_std and estimator in GROUP_RELATIVE
        ),
        loss_agg_mode=config.loss_agg_mode or published.loss_agg_mode,
        zero_variance_filter=_or(
            config.zero_variance_filter, published.zero_variance_filter and no_signal
        ),
        tau=getattr(config.objective, "tau", 1.0),
        scale_factor=config.loss_scale_factor,
    )


def _or(given: bool | None, published: bool) -> bool:
    return published if given is None else given
