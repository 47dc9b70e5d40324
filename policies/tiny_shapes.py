"""Shapes of the embedded policy: one small Hugging Face configuration per architecture."""

from __future__ import annotations

from typing import Any

from palestra.policies.config import TinyConfig

EXPERTS_PER_TOKEN = 2


def shape_of(config: TinyConfig, **tokens: Any) -> Any:
    """The transformers configuration of ``config.architecture``; ``tokens`` are its token ids."""
    common = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "max_position_embeddings": config.max_position_embeddings,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
        "tie_word_embeddings": False,
        **tokens,
    }
    return _SHAPES[config.architecture](config, common)


def _qwen3(config: TinyConfig, common: dict[str, Any]) -> Any:
    from transformers import Qwen3Config

    return Qwen3Config(**common, num_key_value_heads=config.kv_heads, head_dim=config.head_dim)


def _qwen3_moe(config: TinyConfig, common: dict[str, Any]) -> Any:
    from transformers import Qwen3MoeConfig

    return Qwen3MoeConfig(
        **common,
        num_key_value_heads=config.kv_heads,
        head_dim=config.head_dim,
        num_experts=config.experts,
        num_experts_per_tok=EXPERTS_PER_TOKEN,
        moe_intermediate_size=config.intermediate_size // 4,
        norm_topk_prob=True,
    )


def _deepseek_v3(config: TinyConfig, common: dict[str, Any]) -> Any:
    from transformers import DeepseekV3Config

    return DeepseekV3Config(
        **common,
        num_key_value_heads=config.heads,
        q_lora_rank=config.hidden_size // 2,
        kv_lora_rank=config.hidden_size // 4,
        qk_nope_head_dim=config.head_dim // 2,
        qk_rope_head_dim=config.head_dim // 2,
        v_head_dim=config.head_dim // 2,
        n_routed_experts=config.experts,
        num_experts_per_tok=EXPERTS_PER_TOKEN,
        moe_intermediate_size=config.intermediate_size // 4,
        n_shared_experts=1,
        first_k_dense_replace=1,
        n_group=1,
        topk_group=1,
        num_nextn_predict_layers=0,
        # transformers knows no other router; vLLM takes softmax without a bias where these miss.
        scoring_func="sigmoid",
        topk_method="noaux_tc",
    )


_SHAPES = {"qwen3": _qwen3, "qwen3_moe": _qwen3_moe, "deepseek_v3": _deepseek_v3}
