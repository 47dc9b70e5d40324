"""One torch thread, a folder with the tiny policy at its tiniest, and a look at gradients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch

from palestra.policies.config import TinyConfig
from palestra.policies.tiny import build
from palestra.rl.types import Batch

Gradients: TypeAlias = tuple[dict[str, torch.Tensor], dict[str, float]]
GradientsOf: TypeAlias = Callable[[Any, Batch], Gradients]

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def gradients_of() -> GradientsOf:
    """(learner, batch) -> one step: the gradients that the optimizer got, before clipping, by name,
    and the metrics."""
    from deepspeed.utils import safe_get_full_grad

    def of(learner: Any, what: Batch) -> Gradients:
        found: dict[str, torch.Tensor] = {}
        step = learner.engine.step

        def look_and_step() -> None:
            for name, parameter in learner.engine.module.model.named_parameters():
                found[name] = safe_get_full_grad(parameter).clone()
            step()

        learner.engine.step = look_and_step
        try:
            return found, dict(learner.learn(what))
        finally:
            learner.engine.step = step

    return of


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
