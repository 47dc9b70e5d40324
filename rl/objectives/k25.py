"""Kimi K2.5's token-level clipped objective (report section 4.4.2, Eq. 1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from palestra.rl.objectives.tokens import Loss, Tokens

MAX_LOG_RATIO = 60.0
"""Above it the ratio is taken as exp(60) = 1e26: its float32 overflows at exp(88.7), and infinity
times a zero gradient is NaN. Sums of millions of such ratios are finite too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class K25:
    """``loss_t = -( clip(rho_t, alpha, beta) * A_t - tau * (log rho_t)^2 )`` per generated token.

    ``rho = pi_theta / pi_old``. Outside [alpha, beta] the policy gradient is zero whatever the sign
    of the advantage; the squared log-ratio still pulls, as printed, unless ``mask_reg``. The report
    prints a maximand: this is its negative.

    Gradient: ``-( 1{alpha <= rho <= beta} rho A - 2 tau log rho ) * grad log pi_theta``; it and the
    loss are finite for every log-ratio whose square is (1e19 in float32). ``beta`` is below 1e26.
    """

    alpha: float
    beta: float
    tau: float
    mask_reg: bool = False

    def __call__(self, tokens: Tokens) -> Loss:
        """Per-token loss and per-token metrics, all of shape [N]."""
        log_ratio = tokens.log_ratio
        ratio = log_ratio.clamp(max=MAX_LOG_RATIO).exp()
        inside = (ratio >= self.alpha) & (ratio <= self.beta)
        drift = self.tau * log_ratio.square()
        if self.mask_reg:
            drift = drift * inside
        loss = drift - ratio.clamp(self.alpha, self.beta) * tokens.advantages
        with torch.no_grad():
            metrics = {
                "actor/pg_clipfrac": (~inside).float(),
                "actor/ppo_kl": ratio - 1 - log_ratio,
            }
        return loss, metrics
