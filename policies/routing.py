"""Which experts saw a token, as the engine records it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from palestra.policies.hf_folder import model_config
from palestra.rl.types import Routing


def record_of(routed: np.ndarray) -> Routing:
    """What vLLM returns, [tokens, layers, top_k] of uint8 or uint16."""
    _, layers, top_k = routed.shape
    return Routing(layers=layers, top_k=top_k, item_bytes=routed.itemsize, experts=routed.tobytes())


def has_experts(folder: str) -> bool:
    """Does the configuration of a Hugging Face folder name experts?"""
    config = model_config(Path(folder)).get_text_config()
    names = ("num_experts", "n_routed_experts", "num_local_experts")
    return any(getattr(config, name, None) for name in names)
