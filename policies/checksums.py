"""What the digests of an engine's parameters prove about a weight update.

Keys are vLLM's: ``dp0:pp0:pcp0:tp0:model.layers.0.mlp.down_proj.weight``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeAlias

from palestra.rl.errors import EngineError

Checksums: TypeAlias = Mapping[str, str]


def unchanged(before: Checksums, after: Checksums) -> None:
    """An update with the weights that the engine loaded from disk brings back every bit of them."""
    wrong = sorted(k for k in before.keys() | after.keys() if before.get(k) != after.get(k))
    if wrong or not before:
        raise EngineError(
            f"a transfer of the weights on disk changed {len(wrong)} of {len(before)} tensors of "
            f"the engine ({', '.join(wrong[:3])}): either some do not arrive, or "
            "policy.engine.dtype and policy.learner.dtype round them differently"
        )


def moved(before: Checksums, after: Checksums) -> None:
    """After an optimizer step, something changed in every layer."""
    layers: dict[str, bool] = {}
    for key, digest in after.items():
        if layer := re.match(r".*?\.\d+\.", key):
            layers[layer[0]] = layers.get(layer[0], False) or before.get(key) != digest
    still = sorted(layer for layer, changed in layers.items() if not changed)
    if still or not layers:
        raise EngineError(
            f"the learner stepped but {len(still)} of {len(layers)} layers of the engine kept "
            f"their weights ({', '.join(still[:3])})"
        )


def same_everywhere(checksums: Checksums) -> None:
    """Data-parallel replicas hold the same weights."""
    seen: dict[str, str] = {}
    for key, digest in checksums.items():
        shared = re.sub(r"^dp\d+:", "", key)
        if seen.setdefault(shared, digest) != digest:
            raise EngineError(f"engine replicas hold different weights: {shared}")
