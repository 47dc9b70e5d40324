"""CISPO of MiniMax-M1 (arXiv 2506.13585, Eq. 4 and 5): the weight is clipped, not the update."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from palestra.rl.objectives.tokens import Loss, Tokens, k3, ratio_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Cispo:
    """``loss_t = -stopgrad( clip(rho_t, 1 - low, 1 + high) ) A_t log pi_theta``.

    Every token keeps a gradient, whatever its ratio. ``clip_ratio_low = 1`` is no lower bound.
    """

    clip_ratio_low: float
    clip_ratio_high: float

    def __call__(self, tokens: Tokens) -> Loss:
        """Per-token loss and per-token metrics, all of shape [N]."""
        with torch.no_grad():
            ratio = ratio_of(tokens.log_ratio)
            weight = ratio.clamp(1 - self.clip_ratio_low, 1 + self.clip_ratio_high)
            metrics = {
                "actor/pg_clipfrac": (weight != ratio).float(),
                "actor/ppo_kl": k3(tokens.log_ratio),
            }
        return -weight * tokens.advantages * tokens.logprobs, metrics
