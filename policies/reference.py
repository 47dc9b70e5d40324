"""A frozen copy of the policy that RL started from."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from palestra.policies.packing import MicroBatch


class Reference:
    """Scores tokens as ``module`` did in the beginning; it is on the device only meanwhile."""

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        self.module = module.requires_grad_(False).eval()
        self.device = device

    @torch.no_grad()
    def logprobs(self, micros: Iterable[MicroBatch]) -> list[torch.Tensor]:
        """Log-probabilities [N] of each micro-batch's tokens, in host memory."""
        self.module.to(self.device)
        found = [self.module(micro.to(self.device))[0].cpu() for micro in micros]
        self.module.to("cpu")
        return found
