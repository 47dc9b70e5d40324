"""Which optimizer steps which parameter, as DeepSpeed wants to be told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from palestra.policies.config import LearnerConfig
from palestra.policies.muon import Muon
from palestra.policies.shards import shards


def initialize(module: Any, config: LearnerConfig, settings: dict[str, Any], *, cuda: bool) -> Any:
    """The DeepSpeed engine of ``module``, whose ``model`` is a Hugging Face causal LM, with the
    optimizer that ``config`` names."""
    import deepspeed

    # Else a CPU start compiles C++ for the all-reduce of DeepSpeed's inference, which nothing here
    # uses: it needs a compiler, and a process killed meanwhile leaves a lock all others wait for.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if config.optimizer == "adamw":
        adamw = {"type": "AdamW", "params": _adamw(config) | {"torch_adam": not cuda}}
        engine, *_ = deepspeed.initialize(
            model=module,
            model_parameters=[p for p in module.parameters() if p.requires_grad],
            config=settings | {"optimizer": adamw},
        )
        return engine
    model = module.model
    muon = Muon(
        parameter_groups(model, config),
        {p: stacked_rows(n, p.shape, model.config) for n, p in model.named_parameters()},
        dtype=torch.bfloat16 if cuda else torch.float32,
    )
    engine, *_ = deepspeed.initialize(model=module, optimizer=muon, config=settings)
    muon.shards = shards(engine.optimizer, config.zero_stage)
    return engine


def _adamw(config: LearnerConfig) -> dict[str, Any]:
    return {
        "lr": config.lr,
        "betas": list(config.betas),
        "eps": config.eps,
        "weight_decay": config.weight_decay,
    }


def parameter_groups(model: Any, config: LearnerConfig) -> list[dict[str, Any]]:
    """Muon's parameters and AdamW's, each trainable parameter in exactly one group.

    Muon takes matrices and stacks of matrices. AdamW takes embeddings, the output head, norms,
    biases, convolutions and everything below two dimensions (Moonlight section 2.2).
    """
    others = set(_not_matrices(model))
    trained = [p for p in model.parameters() if p.requires_grad]
    matrices = {"lr": config.lr, "momentum": config.momentum, "weight_decay": config.weight_decay}
    groups = [
        {"params": [p for p in trained if p not in others], "muon": True, **matrices},
        {"params": [p for p in trained if p in others], "muon": False, **_adamw(config)},
    ]
    return [group for group in groups if group["params"]]


def _not_matrices(model: Any) -> Iterator[nn.Parameter]:
    convolutions = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    head = model.get_output_embeddings()
    for module in model.modules():
        aside = module is head or isinstance(module, (nn.Embedding, *convolutions))
        for name, parameter in module.named_parameters(recurse=False):
            # The biases of a stack of experts have two dimensions, but are no matrix.
            if aside or parameter.ndim < 2 or name.endswith("bias"):
                yield parameter


def stacked_rows(name: str, shape: tuple[int, ...], config: Any) -> tuple[int, ...]:
    """Heights of the matrices that stand above each other in a parameter; empty for one matrix."""
    leaf = name.removesuffix(".weight").rpartition(".")[2]
    rows, columns = shape[-2:] if len(shape) > 1 else (0, 0)
    if columns != getattr(config, "hidden_size", None):
        return ()
    if leaf == "gate_up_proj":
        return rows // 2, rows // 2
    if leaf == "qkv_proj" and hasattr(config, "num_key_value_heads"):
        width = rows // (config.num_attention_heads + 2 * config.num_key_value_heads)
        keys = config.num_key_value_heads * width
        return config.num_attention_heads * width, keys, keys
    return ()


def reset(optimizer: Any) -> None:
    """Forget moments and counts of steps, as in a fresh optimizer; weights and rates stay."""
    inner = getattr(optimizer, "optimizer", optimizer)
    for state in inner.state.values():
        for name, value in state.items():
            if torch.is_tensor(value):
                value.zero_()
            else:  # DeepSpeed's FusedAdam counts steps in a plain number
                state[name] = 0
