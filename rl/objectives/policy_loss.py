"""An objective with what may stand around it: mismatch correction and a KL penalty."""

from __future__ import annotations

from dataclasses import dataclass

from palestra.rl.objectives.config import OldLogprobs, OnMismatch
from palestra.rl.objectives.kl import KlPenalty
from palestra.rl.objectives.mismatch import Correction
from palestra.rl.objectives.tokens import Loss, Objective, Tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyLoss:
    """``weight_t * objective_t + penalty_t``, and what the learner has to prepare for it.

    ``old_logprobs`` says whose log-probabilities are pi_old; ``kl_in_reward`` that a reference is
    wanted for rewards though the loss has no use for one; ``reset_optimizer`` forgets the
    optimizer's state before each step. Where the engine's recorded log-probabilities and the
    learner's differ by more than ``mismatch_limit`` (mean k3 over tokens; None is no limit), the
    learner stops, or skips the step.
    """

    objective: Objective
    old_logprobs: OldLogprobs = "engine"
    correction: Correction | None = None
    kl: KlPenalty | None = None
    kl_in_reward: bool = False
    reset_optimizer: bool = False
    mismatch_limit: float | None = None
    on_mismatch: OnMismatch = "stop"

    def __call__(self, tokens: Tokens) -> Loss:
        """Per-token loss and per-token metrics, all of shape [N]."""
        loss, metrics = self.objective(tokens)
        if self.correction is not None:
            weight, outside = self.correction(tokens)
            loss = weight * loss
            metrics["mismatch/weight"] = weight
            metrics["mismatch/masked_frac"] = outside.float()
        if self.kl is not None:
            penalty = self.kl(tokens)
            loss = loss + penalty
            metrics["actor/kl_loss"] = penalty.detach() / self.kl.coef
        return loss, metrics
