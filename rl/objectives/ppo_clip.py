"""PPO's clipped surrogate without a critic: GRPO, Dr. GRPO, REINFORCE++ and DAPO share it.

Schulman et al., arXiv 1707.06347, Eq. 7; with two bounds DAPO, arXiv 2503.14476, Eq. 8; dual clip
Ye et al., arXiv 1912.09729, Eq. 5.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from palestra.rl.objectives.tokens import Loss, Tokens, k3, ratio_of


@dataclass(frozen=True, slots=True, kw_only=True)
class PpoClip:
    """``loss_t = -min( rho_t A_t, clip(rho_t, 1 - low, 1 + high) A_t )``.

    For a negative advantage the loss grows with the ratio without bound; ``clip_ratio_c`` holds it
    at ``-c A_t``, and its gradient is 0 there.
    """

    clip_ratio_low: float
    clip_ratio_high: float
    clip_ratio_c: float | None = None

    def __call__(self, tokens: Tokens) -> Loss:
        """Per-token loss and per-token metrics, all of shape [N]."""
        advantages = tokens.advantages
        ratio = ratio_of(tokens.log_ratio)
        free = -ratio * advantages
        clipped = -ratio.clamp(1 - self.clip_ratio_low, 1 + self.clip_ratio_high) * advantages
        loss = torch.maximum(free, clipped)
        with torch.no_grad():
            metrics = {
                "actor/pg_clipfrac": (clipped > free).float(),
                "actor/ppo_kl": k3(tokens.log_ratio),
            }
        if self.clip_ratio_c is not None:
            bound = -self.clip_ratio_c * advantages
            held = (advantages < 0) & (loss > bound)
            loss = torch.where(held, bound, loss)
            metrics["actor/pg_clipfrac_lower"] = held.float()
        return loss, metrics
