"""The learner's routers beside what the engine recorded of its own: compared, or replayed.

Router replay is R3 (arXiv 2510.11370, section 4): the learner's routers send a token to the experts
that the engine's chose, and weigh these with their own logits, through which gradients flow.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from palestra.policies import process_group
from palestra.rl.errors import UserError
from palestra.rl.types import Routing

LAYER = re.compile(r"\blayers\.(\d+)\.")
NO_RECORD = -1


class Piece(NamedTuple):
    """Tokens ``first`` to ``last`` of a sample whose record is ``routing``."""

    routing: Routing | None
    first: int
    last: int


def experts_of(rows: Sequence[Sequence[Piece]], width: int) -> torch.Tensor | None:
    """Recorded experts of rows of pieces, int16 [R, width, layers, top_k]; ``NO_RECORD`` where a
    token has none or is padding. None where no piece has a record."""
    records = [piece.routing for row in rows for piece in row if piece.routing]
    if not records:
        return None
    shape = (records[0].layers, records[0].top_k)
    experts = np.full((len(rows), width, *shape), NO_RECORD, dtype=np.int16)
    for own, row in zip(experts, rows, strict=True):
        start = 0
        for routing, first, last in row:
            if routing:
                kind = "<u1" if routing.item_bytes == 1 else "<u2"
                known = np.frombuffer(routing.experts, kind).reshape(-1, *shape)[first:last]
                own[start : start + len(known)] = known
            start += last - first
    return torch.from_numpy(experts)


class Routers:
    """The routers of ``module.model``. Where a micro-batch has recorded experts, they are compared
    with the routers' own choice in training, and under ``replay`` take its place.

    Tokens without a record go where the router sends them.
    """

    def __init__(self, module: Any, *, replay: bool) -> None:
        self.replay = replay
        named = [(LAYER.search(name), m) for name, m in module.model.named_modules()]
        routers = [(int(at[1]), m) for at, m in named if at and type(m).__name__ in _SCORES]
        if replay and not routers:
            raise UserError(
                f"policy.learner.router_replay: {type(module.model).__name__} has no routers that "
                f"it knows ({', '.join(_SCORES)}); set it to false"
            )
        self._experts: torch.Tensor | None = None
        self._sums: list[torch.Tensor] = []
        module.register_forward_pre_hook(self._before_forward)
        for layer, router in routers:
            router.register_forward_hook(partial(self._route, layer))

    def _before_forward(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self._experts = args[0].experts
        learns = module.training and args[0].policy.any()
        if self.replay and learns and self._experts is None:
            raise UserError(
                "policy.learner.router_replay: the engine records no routing; set "
                "policy.engine.return_routed_experts"
            )

    def _route(self, layer: int, router: Any, args: Any, output: tuple[torch.Tensor, ...]) -> Any:
        """``output``: router logits [N, E], weights [N, K] and experts [N, K] of the own choice."""
        if self._experts is None:
            return None
        logits, weights, own = output
        recorded = self._experts[:, :, layer].flatten(0, 1).long()
        known = recorded[:, :1] != NO_RECORD
        if router.training:
            self._compare(_log_scores(router, logits), own, recorded, known[:, 0])
        if not self.replay:
            return None
        chosen = torch.where(known, recorded, own)
        return logits, torch.where(known, weights_of(router, logits, chosen), weights), chosen

    @torch.no_grad()
    def _compare(
        self, scores: torch.Tensor, own: torch.Tensor, recorded: torch.Tensor, known: torch.Tensor
    ) -> None:
        scores, own, recorded = scores[known], own[known], recorded[known]
        same = (own[:, :, None] == recorded[:, None, :]).sum()
        gap = (scores.gather(1, own) - scores.gather(1, recorded)).sum(-1).abs().sum()
        self._sums.append(torch.stack([own.new_tensor(own.numel()), own.numel() - same, gap]))

    def measure(self, device: torch.device) -> dict[str, float]:
        """Since the last call, over all ranks: the share of (token, layer, expert) choices that the
        learner's routers would make otherwise than the engine's did, and how much less likely they
        hold the engine's experts than their own, in log-probability per choice."""
        choices, other, gap = torch.stack(self._sums).sum(0).tolist() if self._sums else (0.0,) * 3
        self._sums.clear()
        own = {
            "choices": choices,
            "mismatch/router_diff_frac": other,
            "mismatch/router_logprob_gap": gap,
        }
        sums = process_group.together(own, device)
        every = sums.pop("choices")
        return {name: value / every for name, value in sums.items()} if every else {}


def weights_of(router: Any, logits: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Weights [N, K] of the ``chosen`` experts, as ``router`` gives them to its own choice."""
    score, floor = _SCORES[type(router).__name__]
    weights = score(logits.float()).gather(1, chosen)
    if router.norm_topk_prob:
        weights = weights / (weights.sum(-1, keepdim=True) + floor)
    scale: float = getattr(router, "routed_scaling_factor", 1.0)
    return (weights * scale).to(logits.dtype)


def _log_scores(router: Any, logits: torch.Tensor) -> torch.Tensor:
    score, _ = _SCORES[type(router).__name__]
    scores = score(logits.detach().float())
    return (scores / scores.sum(-1, keepdim=True)).clamp_min(torch.finfo().tiny).log()


_SCORES: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], float]] = {
    "Qwen3MoeTopKRouter": (partial(functional.softmax, dim=-1), 0.0),
    "DeepseekV3TopkRouter": (torch.sigmoid, 1e-20),
}
"""By router class of transformers: scores of all experts, and what keeps their sum from 0."""
