"""Group sequence policy optimization (arXiv 2507.18071, Eq. 5 and 7)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from palestra.rl.objectives.tokens import Loss, Tokens, k3, ratio_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Gspo:
    """``loss_i = -min( s_i A_i, clip(s_i, 1 - low, 1 + high) A_i )`` at each token of sample i.

    ``s_i = ( pi_theta(y_i) / pi_old(y_i) )^(1 / |y_i|)``: the ratio's geometric mean over the
    sample's tokens. A mean over tokens, then over samples, gives the formula.
    """

    clip_ratio_low: float
    clip_ratio_high: float

    def __call__(self, tokens: Tokens) -> Loss:
        """Per-token loss and per-token metrics, all of shape [N]."""
        ratio = ratio_of(tokens.means(tokens.log_ratio))
        free = -ratio * tokens.advantages
        bounded = ratio.clamp(1 - self.clip_ratio_low, 1 + self.clip_ratio_high)
        clipped = -bounded * tokens.advantages
        with torch.no_grad():
            metrics = {
                "actor/pg_clipfrac": (clipped > free).float(),
                "actor/ppo_kl": k3(tokens.log_ratio),
            }
        return torch.maximum(free, clipped), metrics
