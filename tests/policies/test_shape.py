"""Counts and activations of models without weights, beside models that have them."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from transformers import AutoModelForCausalLM

from palestra.policies.config import LoraConfig, TinyConfig
from palestra.policies.module import PolicyModule
from palestra.policies.packing import MicroBatch, micro_batches
from palestra.policies.shape import shape_of
from palestra.policies.tiny_shapes import shape_of as config_of
from palestra.rl.errors import UserError
from palestra.rl.types import Sample

Architecture = Literal["qwen3", "qwen3_moe", "deepseek_v3"]
ARCHITECTURES: tuple[Architecture, ...] = ("qwen3", "qwen3_moe", "deepseek_v3")
TOKENS = 256


def toy(architecture: Architecture, dtype: torch.dtype, layers: int = 4) -> PolicyModule:
    """A small policy with random weights."""
    config = config_of(
        TinyConfig(architecture=architecture, layers=layers),
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.config.use_cache = False
    return PolicyModule(model, 64).train()


def micro() -> MicroBatch:
    """One sample that is learned from as a whole."""
    sample = Sample(
        token_ids=tuple(range(5, 5 + TOKENS)),
        loss_mask=(True,) * TOKENS,
        logprobs=(0.0,) * TOKENS,
        advantages=(1.0,) * TOKENS,
        ptx=(0.0,) * TOKENS,
    )
    (found,) = micro_batches([sample], row_tokens=TOKENS, micro_batch_tokens=TOKENS)
    return found


def kept_bytes(module: PolicyModule) -> int:
    """Bytes that a forward pass keeps for the backward pass, the parameters aside."""
    own = {p.untyped_storage().data_ptr() for p in module.parameters()}
    seen: dict[int, tuple[int, torch.Tensor]] = {}  # the tensors live on, so no place is used twice

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        module(micro())
    return sum(size for size, _ in seen.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_a_layer_keeps_is_foretold_within_a_tenth(
    architecture: Architecture, dtype: torch.dtype
) -> None:
    more, less = (kept_bytes(toy(architecture, dtype, layers)) for layers in (4, 2))
    measured = (more - less) / 2 / TOKENS
    config = toy(architecture, dtype).model.config.to_dict()
    in_bytes, values = shape_of(config, LoraConfig()).kept
    assert in_bytes + values * dtype.itemsize == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_parameters_are_those_of_the_model(architecture: Architecture) -> None:
    model = toy(architecture, torch.float32).model
    shape = shape_of(model.config.to_dict(), LoraConfig(rank=4, target_modules=["o_proj"]))
    assert shape.total == sum(p.numel() for p in model.parameters())
    assert shape.largest_tensor == max(p.numel() for p in model.parameters())
    projections = [layer.self_attn.o_proj for layer in model.model.layers]
    assert shape.adapter == 4 * sum(p.in_features + p.out_features for p in projections)
    experts = sum(p.numel() for name, p in model.named_parameters() if ".experts." in name)
    assert shape.active == shape.total - experts * 6 // 8


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_checkpointed_layers_keep_their_input_alone_and_give_the_same_gradients(
    architecture: Architecture,
) -> None:
    plain, frugal = (toy(architecture, torch.float32) for _ in range(2))
    frugal.model.gradient_checkpointing_enable({"use_reentrant": False})
    assert kept_bytes(frugal) < 0.3 * kept_bytes(plain)
    for module in (plain, frugal):
        module(micro())[0].sum().backward()
    for ours, theirs in zip(frugal.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "no model_type"),
        ({"model_type": "abacus"}, "does not know model_type abacus"),
        ({"model_type": "vit"}, "model_type vit"),
    ],
)
def test_a_config_that_is_none_is_refused(config: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        shape_of(config, LoraConfig())
