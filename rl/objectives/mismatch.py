"""Corrections for an engine that samples from another distribution than the learner computes.

Truncated importance sampling (TIS): Yao et al. 2025, "Your efficient RL framework secretly brings
you off-policy RL training". Masked (MIS): Liu et al. 2025, "When speed kills stability". IcePop:
Ring-1T report, arXiv 2510.18855.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from palestra.rl.objectives.config import CorrectionName, Level
from palestra.rl.objectives.tokens import Tokens, ratio_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """A weight per token from ``w = pi_old / pi_engine``, both before the step; no gradient.

    ``tis`` is ``min(w, high)``; ``mis`` is ``w`` up to ``high`` and 0 above; ``icepop`` is ``w``
    within [low, high] and 0 outside. At the level ``sequence`` one ``w`` per sample, the product
    over its tokens, weighs all of them.
    """

    name: CorrectionName
    level: Level
    low: float
    high: float

    @torch.no_grad()
    def __call__(self, tokens: Tokens) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight of each token, and True where it was truncated or masked, both [N]."""
        log_ratio = tokens.old - tokens.engine
        ratio = ratio_of(tokens.sums(log_ratio) if self.level == "sequence" else log_ratio)
        match self.name:
            case "tis":
                return ratio.clamp(max=self.high), ratio > self.high
            case "mis":
                outside = ratio > self.high
            case "icepop":
                outside = (ratio > self.high) | (ratio < self.low)
        return ratio.masked_fill(outside, 0.0), outside
