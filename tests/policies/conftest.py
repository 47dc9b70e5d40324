"""One torch thread, and a folder with the tiny policy at its tiniest."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from palestra.policies.config import TinyConfig
from palestra.policies.tiny import build

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers of Qwen3, 32 wide, 400 ids, untied head."""
    folder = tmp_path_factory.mktemp("policy") / "tiny"
    shape = TinyConfig(
        vocab_size=400,
        hidden_size=32,
        intermediate_size=64,
        layers=2,
        heads=2,
        kv_heads=1,
        head_dim=16,
        max_position_embeddings=256,
    )
    build(folder, shape, ["def add(a, b):\n    return a + b\n"], [], seed=0)
    return folder
