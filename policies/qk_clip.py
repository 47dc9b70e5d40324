"""QK-Clip: attention heads whose logits grow beyond a threshold are scaled back.

K2 (arXiv 2507.20534), section 2.1, Algorithm 1 and appendix D.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from palestra.policies import attention
from palestra.policies.attention import Sequences
from palestra.policies.shards import Shard
from palestra.rl.errors import UserError

NAME = "sdpa_over_sequences_with_max_logits"
QUERIES_AT_ONCE = 256
"""Rows of the attention matrix that exist at once while its maximum is looked for."""


class QkClip:
    """Watches the attention of ``module.model`` in training mode, and clips with each step.

    ``start`` ties it to DeepSpeed's optimizer; then per step: forward and backward passes,
    ``measure``, the optimizer's step. Rescaling happens right after the optimizer's own step on the
    float32 masters, from which DeepSpeed makes the working weights.
    """

    def __init__(self, module: Any, tau: float) -> None:
        self.tau = tau
        self.layers = [m for m in module.model.modules() if hasattr(m, "num_key_value_groups")]
        self.maxima: dict[int, torch.Tensor] = {}
        self.factors: dict[torch.Tensor, torch.Tensor] = {}
        for layer in self.layers:
            check_supported(layer)
            layer.qk_clip = self
        _watch(module.model)

    def start(
        self, optimizer: torch.optim.Optimizer, shards: Mapping[torch.Tensor, Sequence[Shard]]
    ) -> None:
        """Clip after every step of ``optimizer``, the one below DeepSpeed's."""
        self.shards = shards
        optimizer.register_step_post_hook(self._rescale)

    def see(
        self,
        layer: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        sequences: Sequences,
        scaling: float,
    ) -> None:
        """Note the logits of one forward pass; padding does not count."""
        stacks = zip(sequences.of(query, key), sequences.lengths, strict=True)
        largest = [max_logits(q, k, lengths) for (q, k), lengths in stacks]
        found = torch.stack(largest).amax(0) * scaling
        index = self.layers.index(layer)
        before = self.maxima.get(index, found)
        self.maxima[index] = torch.maximum(before, found)

    def measure(self) -> dict[str, float]:
        """Largest logit per layer since the last call, over all ranks; fixes what the coming step
        rescales."""
        maxima = [self.maxima[index] for index in range(len(self.layers))]
        self.maxima.clear()
        together = torch.cat(maxima)
        torch.distributed.all_reduce(together, op=torch.distributed.ReduceOp.MAX)
        metrics = {"actor/max_logit": float(together.max())}
        self.factors, clipped = {}, 0
        sizes = [len(heads) for heads in maxima]
        for index, (layer, heads) in enumerate(
            zip(self.layers, torch.split(together, sizes), strict=True)
        ):
            metrics[f"actor/max_logit/layer_{index}"] = float(heads.max())
            hot = heads > self.tau
            clipped += int(hot.sum())
            if hot.any():
                gamma_H = torch.where(hot, self.tau / heads, torch.ones_like(heads))
                self.factors |= dict(factors(layer, gamma_H))
        return metrics | {"actor/qk_clip_heads": float(clipped)}

    @torch.no_grad()
    def _rescale(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        for flat in (flat for group in optimizer.param_groups for flat in group["params"]):
            for shard in self.shards[flat]:
                factor = self.factors.get(shard.parameter)
                if factor is not None:
                    own = factor.expand(shard.shape).flatten()
                    own = own[shard.first : shard.first + shard.count]
                    flat[shard.start : shard.start + shard.count].mul_(own)


@torch.no_grad()
def max_logits(query: torch.Tensor, key: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Largest q.k of each head where a query sees a key, float32 of shape [H].

    ``query`` has shape [B, H, L, D], ``key`` [B, G, L, D] with G dividing H; a query sees what
    stands before it and itself, and those from ``lengths`` [B] on do not count.
    """
    heads = query.size(1)
    key = key.repeat_interleave(heads // key.size(1), dim=1)
    best = query.new_full((heads,), -torch.inf, dtype=torch.float32)
    places = torch.arange(query.size(2), device=query.device)
    for queries, own in zip(
        torch.split(query, QUERIES_AT_ONCE, -2), torch.split(places, QUERIES_AT_ONCE), strict=True
    ):
        seen = (places <= own[:, None]) & (own[:, None] < lengths[:, None, None, None])
        logits = (queries @ key.mT).float().masked_fill(~seen, -torch.inf)
        best = torch.maximum(best, logits.amax((0, 2, 3)))
    return best


def factors(layer: Any, gamma_H: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """What each parameter of an attention layer is multiplied by, broadcastable to its shape.

    ``gamma_H`` is tau over the largest logit of a head, 1 where that is below tau.
    """
    root_H = gamma_H.sqrt()
    if hasattr(layer, "kv_b_proj"):
        yield from _latent(layer, gamma_H, root_H)
    elif hasattr(layer, "q_norm"):
        # Behind a norm, the scale of a projection has no effect; its gains serve all heads.
        for norm in (layer.q_norm, layer.k_norm):
            yield norm.weight, root_H.min()
    elif layer.num_key_value_groups == 1:
        yield from _rows(layer.q_proj, root_H, layer.head_dim)
        yield from _rows(layer.k_proj, root_H, layer.head_dim)
    else:  # the siblings of a clipped head share its key
        yield from _rows(layer.q_proj, gamma_H, layer.head_dim)


def _latent(
    layer: Any, gamma_H: torch.Tensor, root_H: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """MLA: the rotary key is shared by the heads, so the rotary query takes all of gamma."""
    content, rotary = layer.qk_nope_head_dim, layer.qk_rope_head_dim
    query = layer.q_proj if layer.q_lora_rank is None else layer.q_b_proj
    one_H = torch.ones_like(gamma_H)
    yield query.weight, _per_row((root_H, content), (gamma_H, rotary))[:, None]
    yield layer.kv_b_proj.weight, _per_row((root_H, content), (one_H, layer.v_head_dim))[:, None]


def _rows(
    projection: nn.Linear, factor_H: torch.Tensor, width: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    rows = _per_row((factor_H, width))
    yield projection.weight, rows[:, None]
    if projection.bias is not None:
        yield projection.bias, rows


def _per_row(*parts: tuple[torch.Tensor, int]) -> torch.Tensor:
    """Each head's rows: ``width`` times its factor, part after part."""
    return torch.cat([f[:, None].expand(-1, width) for f, width in parts], dim=1).flatten()


def check_supported(layer: Any) -> None:
    """Raises UserError for an attention layer whose weights this module cannot rescale."""
    kind = type(layer).__name__
    norm = getattr(layer, "q_norm", None)
    if norm is not None:
        zero = {"weight": torch.zeros_like(norm.weight)}
        values = torch.ones(norm.weight.shape, dtype=norm.weight.dtype, device=norm.weight.device)
        per_head = norm.weight.shape == (layer.head_dim,)
        if not per_head or torch.func.functional_call(norm, zero, (values,)).any():
            raise UserError(f"policy.learner.qk_clip: the query norm of {kind} is not supported")
    elif not hasattr(layer, "kv_b_proj") and not (
        hasattr(layer, "q_proj") and hasattr(layer, "k_proj") and hasattr(layer, "head_dim")
    ):
        raise UserError(f"policy.learner.qk_clip: {kind} is not supported")


def _watch(model: Any) -> None:
    """Let every attention layer show its queries and keys; its results stay as they are."""

    def forward(
        layer: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: None,
        *,
        sequences: Sequences,
        **more: Any,
    ) -> Any:
        if layer.training:
            layer.qk_clip.see(layer, query, key, sequences, more["scaling"])
        return attention.attend(layer, query, key, value, mask, sequences=sequences, **more)

    attention.use(model, NAME, forward)
