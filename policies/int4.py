"""Weights in four bits: one convention for the trainer, the packer and whoever loads the result.

Groups of 32 neighbours in a row share a scale, as compressed-tensors has it for symmetric INT4:

    scale = max |w| / 7.5                        machine epsilon where that is 0
    q     = round(clamp(w / scale, -8, 7))       ties to even
    w'    = q * scale

All arithmetic is in the type of the weight, and the scale is stored in it. ``w'`` would get another
scale, so a checkpoint is packed from ``w``, never from ``w'``.
"""

from __future__ import annotations

from typing import Any

import torch

GROUP = 32
LOW, HIGH = -8, 7
PER_WORD = 8
"""Values of four bits in an int32."""


def scales(weight: torch.Tensor) -> torch.Tensor:
    """One scale per group: [..., K/32] of a ``weight`` [..., K], with K a multiple of 32."""
    found = _in_groups(weight, GROUP).abs().amax(-1) / ((HIGH - LOW) / 2)
    return found.masked_fill(found == 0, torch.finfo(weight.dtype).eps)


def quantise(weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Whole numbers from -8 to 7, still in the type of ``weight``, so that a NaN stays one."""
    groups = _in_groups(weight, GROUP) / scale.unsqueeze(-1)
    return groups.clamp(LOW, HIGH).round().flatten(-2)


def dequantise(quantised: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """What the engine computes with, in the type of ``scale``."""
    groups = _in_groups(quantised.to(scale.dtype), GROUP)
    return (groups * scale.unsqueeze(-1)).flatten(-2)


def pack(quantised: torch.Tensor) -> torch.Tensor:
    """Eight neighbours in an int32, the first in the lowest bits, each with 8 added: [..., K/8]."""
    words = _in_groups(quantised.to(torch.int32) - LOW, PER_WORD)
    return (words << _shifts(words)).sum(-1, dtype=torch.int32)


def unpack(packed: torch.Tensor) -> torch.Tensor:
    """The inverse of ``pack``: int8 of shape [..., K]."""
    words = (packed.unsqueeze(-1) >> _shifts(packed)) & 0xF
    return (words + LOW).to(torch.int8).flatten(-2)


def _in_groups(values: torch.Tensor, size: int) -> torch.Tensor:
    return values.reshape(*values.shape[:-1], -1, size)


def _shifts(like: torch.Tensor) -> torch.Tensor:
    return torch.arange(0, 32, 4, dtype=torch.int32, device=like.device)


class _FakeQuantise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor) -> torch.Tensor:
        scale = scales(weight)
        return dequantise(quantise(weight, scale), scale)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0]


def fake_quantise(weight: torch.Tensor) -> torch.Tensor:
    """``weight`` as it comes back from four bits; its gradient goes straight through."""
    rounded: torch.Tensor = _FakeQuantise.apply(weight)  # type: ignore[no-untyped-call]
    return rounded
