"""Plain policy gradient (Williams 1992); with leave-one-out advantages RLOO, arXiv 2402.14740."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from palestra.rl.objectives.tokens import Loss, Tokens, k3


@dataclass(frozen=True, slots=True, kw_only=True)
class Reinforce:
    """``loss_t = -A_t log pi_theta``: no ratio at all, so it is for one update per batch."""

    def __call__(self, tokens: Tokens) -> Loss:
        """Per-token loss and per-token metrics, all of shape [N]."""
        with torch.no_grad():
            metrics = {"actor/ppo_kl": k3(tokens.log_ratio)}
        return -tokens.advantages * tokens.logprobs, metrics
