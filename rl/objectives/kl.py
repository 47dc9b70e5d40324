"""Per-token penalties against a frozen reference (Schulman 2020, "Approximating KL divergence")."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from palestra.rl.objectives.config import KlType
from palestra.rl.objectives.tokens import Tokens, k3


@dataclass(frozen=True, slots=True, kw_only=True)
class KlPenalty:
    """``coef`` times an estimate of KL(pi_theta || reference), with ``d = log pi_theta - log ref``:
    k1 is ``d``, k2 ``d^2 / 2``, k3 ``e^-d - 1 + d``.

    In a loss the gradient of k1 is 0 on average, that of k2 is the gradient of the KL divergence,
    and that of k3 is the gradient of KL(reference || pi_theta); in a reward k1 is unbiased.
    """

    coef: float
    type: KlType

    def __call__(self, tokens: Tokens) -> torch.Tensor:
        """The penalty of each token, [N]."""
        if tokens.reference is None:
            raise ValueError("a KL penalty needs the reference's log-probabilities")
        difference = tokens.logprobs - tokens.reference
        match self.type:
            case "k1":
                return self.coef * difference
            case "k2":
                return self.coef * difference.square() / 2
            case "k3":
                return self.coef * k3(-difference)
