"""What every vLLM process of ours loads first (entry point ``vllm.general_plugins``).

It registers the "shm" weight-transfer backend and, on CPU, replaces vLLM's prepacked linear layers
by plain ones. A prepacked copy of a tied output head would go stale when weights are updated; and
rows are padded to a number at which MKL computes each the same whatever stands beside it, so that a
run can be repeated whichever other episodes happen to be in flight. Experts are packed again after
a weight update, which vLLM 0.32 forgets on CPU, and latent attention is computed in another way.
"""

from __future__ import annotations

import os
from typing import Any

from palestra.policies.vllm_routing import record_on_cpu

MIN_ROWS = 32
"""MKL takes another code path (and rounds differently) below about 16 rows."""


def register() -> None:
    """Idempotent, as vLLM calls plugins once per process and again in workers."""
    from vllm.distributed.weight_transfer.factory import (
        WeightTransferEngineFactory,
        WeightTransferTrainerFactory,
    )
    from vllm.platforms import current_platform

    if "shm" not in WeightTransferEngineFactory._registry:
        module = "palestra.policies.shm_transfer"
        WeightTransferEngineFactory.register_engine("shm", module, "ShmWeightTransferEngine")
        WeightTransferTrainerFactory.register_engine("shm", module, "ShmTrainerEngine")
    if current_platform.is_cpu():
        _pack_cpu_experts_after_updates()
        _expand_latent_attention_on_cpu()
        record_on_cpu()  # does nothing for an engine that is not asked for experts
        if os.environ.get("PALESTRA_ROW_INVARIANT", "1") == "1":
            _make_cpu_linear_row_invariant()


def _make_cpu_linear_row_invariant() -> None:
    import torch
    from torch.nn import functional
    from vllm.model_executor.layers import utils

    def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        rows = x.shape[0]
        if rows >= MIN_ROWS or x.dim() != 2:
            return functional.linear(x, weight, bias)
        padded = x.new_zeros((MIN_ROWS, x.shape[1]))
        padded[:rows] = x
        return functional.linear(padded, weight, bias)[:rows]

    def dispatch(layer: Any, remove_weight: bool) -> None:
        # No prepacked copy: it would also go stale for tied heads when weights are updated.
        layer.cpu_linear = linear

    utils.dispatch_cpu_unquantized_gemm = dispatch


def _pack_cpu_experts_after_updates() -> None:
    """At start-up vLLM packs the experts for its CPU kernel; an update leaves them as they came."""
    from vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method import (
        UnquantizedFusedMoEMethod,
    )

    original = UnquantizedFusedMoEMethod._setup_kernel
    if original.__name__ == "setup_and_pack":
        return

    def setup_and_pack(self: Any, layer: Any, w13: Any, w2: Any) -> None:
        update = self.moe_kernel is not None
        original(self, layer=layer, w13=w13, w2=w2)
        if update:
            self.moe_kernel.fused_experts.process_weights_after_loading(layer)

    UnquantizedFusedMoEMethod._setup_kernel = setup_and_pack


def _expand_latent_attention_on_cpu() -> None:
    """Latent attention (MLA) as ordinary attention over the expanded keys and values.

    vLLM's CPU kernels for the latent cache take bfloat16 (AMX) or DeepSeek's width alone. On the
    other path its rotary kernel miscounts: of a query of shape [T, heads, width] it takes the last
    axis for all heads of a token, and the stride of a head for that of a token. It is given
    [T, heads * width] instead.
    """
    import torch
    from vllm.model_executor.layers.rotary_embedding.base import RotaryEmbedding

    os.environ.setdefault("VLLM_MLA_DISABLE", "1")
    original = RotaryEmbedding.forward_cpu
    if original.__name__ == "flat_heads":
        return

    def flat_heads(
        self: Any, positions: torch.Tensor, query: torch.Tensor, key: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        flat = None if key is None else key.flatten(1)
        q, k = original(self, positions, query.flatten(1), flat)
        return q.view(query.shape), k if key is None else k.view(key.shape)

    RotaryEmbedding.forward_cpu = flat_heads
