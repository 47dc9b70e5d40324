"""The squared regression of Kimi K1.5 (section 2.3.2) and K2 (section 3.2.3), per sequence."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from palestra.rl.objectives.tokens import Loss, Tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorDescent:
    """``loss_i = ( A_i - tau * log( pi_theta(y_i) / pi_old(y_i) ) )^2`` at each token of sample i.

    The log-ratio is summed over the sample's tokens. With ``A = r - mean(r)`` this is K2's
    objective and K1.5's surrogate in practice; with ``A = r - tau log Z`` it is K1.5's surrogate as
    derived, and is 0 at ``pi_old e^(r/tau) / Z``. A mean over tokens, then over samples, gives the
    formula.

    Gradient: ``-2 tau ( A_i - tau log ratio_i ) * grad log pi_theta(y_i)``, which is ``-2 tau``
    times K1.5's Eq. 3. Finite where the square is.
    """

    tau: float

    def __call__(self, tokens: Tokens) -> Loss:
        """Per-token loss and per-token metrics, all of shape [N]."""
        log_ratio = tokens.sums(tokens.log_ratio)
        loss = (tokens.advantages - self.tau * log_ratio).square()
        with torch.no_grad():
            metrics = {"actor/seq_log_ratio": log_ratio.abs()}
        return loss, metrics
