"""What a model weighs, and what a training step of it keeps, from its ``config.json`` alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from palestra.policies.config import LoraConfig
from palestra.rl.errors import UserError

ALIASES = {"kimi_k2": "deepseek_v3"}
"""Model types that transformers knows by another name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """Numbers of parameters, and widths per token; of experts, those that see a token.

    ``kept`` is (bytes, values): what the backward pass of one layer needs per token, as bytes in
    any precision and as values in the working precision. ``cached`` are values per token and layer
    of the KV cache that are split over ``kv_heads`` engine ranks at most, 1 for latent attention.
    """

    total: int
    active: int
    embedding: int
    experts: int
    matrices: int
    largest_layer: int
    largest_tensor: int
    adapter: int
    layers: int
    hidden: int
    vocabulary: int
    kept: tuple[int, int]
    cached: int
    kv_heads: int


def shape_of(config: Mapping[str, Any], lora: LoraConfig) -> ModelShape:
    """The shape of the causal LM that ``config`` describes, without its weights.

    Parameters are counted on the model that transformers builds, on no device. Raises ``UserError``
    for a model type that it does not know.
    """
    import torch
    from transformers import AutoModelForCausalLM

    found = _transformers_config(config)
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(found)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise UserError(f"model_type {config.get('model_type')}: {error}") from error
    head = model.get_output_embeddings()
    embedding = model.get_input_embeddings().weight.numel()
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    largest = max(sum(p.numel() for p in layer.parameters()) for layer in model.model.layers)
    linear = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    ]
    wanted = set(lora.target_modules)
    adapted = [m for n, m in linear if "all-linear" in wanted or n.rpartition(".")[2] in wanted]
    text = found.get_text_config()
    experts = sum(size for name, size in sizes.items() if ".experts." in name)
    return ModelShape(
        total=sum(sizes.values()),
        active=sum(sizes.values()) - _idle(text, experts),
        embedding=embedding,
        experts=experts,
        matrices=sum(
            p.numel()
            for n, p in model.named_parameters()
            if p.ndim > 1 and "embed" not in n and n != "lm_head.weight"
        ),
        largest_layer=largest,
        largest_tensor=max(sizes.values()),
        adapter=lora.rank * sum(m.in_features + m.out_features for m in adapted),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        vocabulary=text.vocab_size,
        kept=_kept(text),
        cached=_cached(text),
        kv_heads=1 if _latent(text) else _of(text, "num_key_value_heads", 1),
    )


def _transformers_config(config: Mapping[str, Any]) -> Any:
    from transformers import AutoConfig

    given = {k: v for k, v in config.items() if k not in ("auto_map", "quantization_config")}
    kind = given.pop("model_type", None)
    if not isinstance(kind, str):
        raise UserError("config.json: it has no model_type")
    try:
        return AutoConfig.for_model(ALIASES.get(kind, kind), **given)
    except ValueError as error:
        raise UserError(f"config.json: transformers does not know model_type {kind}") from error


def _of(config: Any, name: str, default: int = 0) -> int:
    value = getattr(config, name, None)
    return default if value is None else int(value)


def _latent(config: Any) -> bool:
    return _of(config, "kv_lora_rank") > 0


def _routed(config: Any) -> tuple[int, int]:
    """Routed experts of a layer, and those that see a token."""
    count = _of(config, "n_routed_experts") or _of(config, "num_experts")
    return count, _of(config, "num_experts_per_tok")


def _idle(config: Any, experts: int) -> int:
    """Of the experts' parameters, those that a token does not see."""
    count, used = _routed(config)
    return experts * (count - used) // count if count else 0


def _kept(config: Any) -> tuple[int, int]:
    """What a layer keeps per token for its backward pass, counted on transformers' modules: inputs
    of its linear layers, of its norms (also in float32), of attention, and of the activation."""
    hidden = config.hidden_size
    attention, normed = _latent_widths(config) if _latent(config) else _plain_widths(config)
    feed_forward = _feed_forward(config)
    router = hidden if _of(config, "n_routed_experts") else 0  # DeepSeek's computes in float32
    in_float32 = 4 * (2 * hidden + normed + router)
    in_working = 2 * (2 * hidden) + normed + attention + feed_forward
    return in_float32, in_working


def _plain_widths(config: Any) -> tuple[int, int]:
    """Values of attention, and those that norms of its own see."""
    heads = config.num_attention_heads
    width = _of(config, "head_dim", config.hidden_size // heads)
    query, key = heads * width, _of(config, "num_key_value_heads", heads) * width
    normed = query + key if config.model_type.startswith("qwen3") else 0
    return query + 2 * key + 2 * query, normed


def _latent_widths(config: Any) -> tuple[int, int]:
    heads, rank = config.num_attention_heads, config.kv_lora_rank
    width = config.qk_nope_head_dim + config.qk_rope_head_dim
    low = _of(config, "q_lora_rank")
    inputs_of_second = low + rank
    # Values are padded to the width of queries and keys, results are cut again.
    return inputs_of_second + 3 * heads * width + 2 * heads * config.v_head_dim, low + rank


def _feed_forward(config: Any) -> int:
    """Of SwiGLU: gate, its activation, up and their product; the widest kind of layer counts."""
    dense = 4 * _of(config, "intermediate_size")
    count, used = _routed(config)
    if not count:
        return dense
    width = _of(config, "moe_intermediate_size")
    shared = 4 * width * _of(config, "n_shared_experts")
    routed = used * (2 * _of(config, "hidden_size") + 4 * width) + shared
    return max(routed, dense if _of(config, "first_k_dense_replace") else 0)


def _cached(config: Any) -> int:
    if _latent(config):
        return int(config.kv_lora_rank) + int(config.qk_rope_head_dim)
    heads = config.num_attention_heads
    width = _of(config, "head_dim", config.hidden_size // heads)
    return 2 * _of(config, "num_key_value_heads", heads) * width
