"""Muon: momentum whose every matrix is orthogonalised (arXiv 2502.16982, "Moonlight").

DeepSpeed has a Muon of its own. It clips the orthogonalised update by ``gradient_clipping`` where
the gradient is meant, scales otherwise, and takes stacked matrices for one; so here an optimizer
that DeepSpeed shards as it shards AdamW, and which gathers only matrices that lie on several ranks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from palestra.policies.shards import Shard, whole

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic a x + b x^3 + c x^5 that is applied to the singular values."""
ITERATIONS = 5
RMS = 0.2
"""Root mean square of an update with singular values of 1: about AdamW's (Moonlight Eq. 4)."""


def newton_schulz(update: torch.Tensor) -> torch.Tensor:
    """About U V^T for each matrix U S V^T in ``update`` of shape [..., n, m].

    Singular values become ``f^5(s / ||update||_F)``, all between 0.68 and 1.13 unless they were
    very small.
    """
    a, b, c = COEFFICIENTS
    tall = update.size(-2) > update.size(-1)
    x: torch.Tensor = update.mT if tall else update
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


def rms_scale(rows: int, columns: int) -> float:
    """0.2 sqrt(max(n, m)): U V^T times this has a root mean square of 0.2 (Moonlight Lemma 1)."""
    return RMS * math.sqrt(max(rows, columns))


def orthogonalised(update: torch.Tensor, rows: Sequence[int] = ()) -> torch.Tensor:
    """The step for ``update`` [..., n, m]; ``rows`` are the heights of the matrices that stand
    above each other in n (empty: one matrix)."""
    parts = torch.split(update, list(rows) or [update.size(-2)], dim=-2)
    return torch.cat(
        [newton_schulz(part) * rms_scale(part.size(-2), part.size(-1)) for part in parts], dim=-2
    )


class Muon(torch.optim.Optimizer):
    """Groups with ``muon`` True step by Muon, the others by AdamW.

    ``rows`` gives the heights of stacked matrices by parameter. After ``deepspeed.initialize`` set
    ``shards``: the optimizer then sees flat pieces and has to know what lies where.

    A Muon group keeps one buffer: with gradient G, M = momentum M + G, the update is that of
    ``momentum M + G`` (Nesterov), and W = W - lr (update + weight_decay W).
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        rows: Mapping[torch.Tensor, Sequence[int]],
        dtype: torch.dtype,
    ) -> None:
        super().__init__(groups, {})
        self.rows = rows
        self.dtype = dtype
        self.shards: Mapping[torch.Tensor, Sequence[Shard]] = {}
        self.adamw = torch.optim.AdamW([g for g in self.param_groups if not g["muon"]])

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step of every group; DeepSpeed calls it once for each of its flat pieces."""
        for group in self.param_groups:
            if group["muon"]:
                for flat in group["params"]:
                    self._step(flat, group)
            else:
                self.adamw.param_groups, self.adamw.state = [group], self.state
                self.adamw.step()

    def _step(self, flat: torch.Tensor, group: Mapping[str, Any]) -> None:
        assert flat.grad is not None
        state = self.state[flat]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(flat)
        momentum = state["momentum_buffer"].mul_(group["momentum"]).add_(flat.grad)
        nesterov = flat.grad.add(momentum, alpha=group["momentum"]).to(self.dtype)
        flat.mul_(1 - group["lr"] * group["weight_decay"])
        for shard in self.shards[flat]:
            matrix = whole(shard, nesterov)
            if shard.count:
                update = orthogonalised(matrix, self.rows.get(shard.parameter, ())).flatten()
                own = update[shard.first : shard.first + shard.count]
                flat[shard.start : shard.start + shard.count].add_(own, alpha=-group["lr"])
