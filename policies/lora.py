"""Low-rank adapters (arXiv 2106.09685): a frozen weight W computes as W + (alpha / rank) B A.

peft puts them into the learner's model. An adapter on disk is a folder in peft's form, which
learner and engine both load when a run starts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from palestra.policies.config import LoraConfig
from palestra.policies.guards import Shape
from palestra.policies.hf_folder import empty_model
from palestra.policies.packing import MicroBatch
from palestra.rl.errors import UserError

WEIGHTS = "adapter_model.safetensors"
SETTINGS = "adapter_config.json"
MARK = ".lora_"
"""In the name of each of an adapter's parameters, and of no other."""


def create(model_folder: Path, folder: Path, config: LoraConfig, seed: int) -> None:
    """Write the adapter that a run starts from: A random as in ``nn.Linear``, B zero, so that the
    model computes what it did. Raises UserError where the model has no such layers."""
    from peft import LoraConfig as PeftConfig

    layers = linear_layers(model_folder)
    kinds = target_kinds(layers, config.target_modules)
    random = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, layer in layers.items():
        if kind_of(name) in kinds:
            a = torch.empty(config.rank, layer.in_features)
            nn.init.kaiming_uniform_(a, a=math.sqrt(5), generator=random)
            tensors[saved_name(f"{name}.lora_A.default.weight")] = a
            b = torch.zeros(layer.out_features, config.rank)
            tensors[saved_name(f"{name}.lora_B.default.weight")] = b
    settings = PeftConfig(
        task_type="CAUSAL_LM",
        r=config.rank,
        lora_alpha=config.alpha,
        target_modules=kinds,
        base_model_name_or_path=str(model_folder),
        inference_mode=True,
    )
    write(folder, settings, tensors)


def linear_layers(model_folder: Path) -> dict[str, nn.Linear]:
    """A model's linear layers but its output head, by name and without their weights."""
    model = empty_model(model_folder)
    head = model.get_output_embeddings()
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }


def kind_of(layer: str) -> str:
    """``model.layers.0.mlp.down_proj`` -> ``down_proj``."""
    return layer.rpartition(".")[2]


def target_kinds(layers: Iterable[str], targets: Sequence[str]) -> list[str]:
    """The kinds of layer that get an adapter; ``all-linear`` is every kind that there is."""
    there = sorted(set(map(kind_of, layers)))
    if list(targets) == ["all-linear"]:
        return there
    unknown = sorted(set(targets) - set(there))
    if unknown:
        raise UserError(
            f"policy.lora.target_modules: the model has no linear layers {', '.join(unknown)}; "
            f"it has {', '.join(there)}"
        )
    return sorted(set(targets))


def saved_name(name: str) -> str:
    """A parameter's name in the file, for its name in the model."""
    return f"base_model.model.{name}".replace(".default.", ".")


def write(folder: Path, settings: Any, tensors: Mapping[str, torch.Tensor]) -> None:
    """An adapter in peft's form; ``tensors`` by their name in the file."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(tensors), folder / WEIGHTS, metadata={"format": "pt"})
    settings.save_pretrained(folder)


def file_shapes(path: Path) -> dict[str, Shape]:
    """Names and shapes of a safetensors file."""
    with safe_open(path, framework="pt") as tensors:
        return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}


def merged(tensors: Mapping[str, torch.Tensor], scaling: float) -> dict[str, torch.Tensor]:
    """The weights of a plain model that computes the same: W + scaling B A, summed in float32 and
    rounded once. ``tensors`` and the result by their names in the models."""
    plain = {}
    for name, tensor in tensors.items():
        layer, wrapped, leaf = name.partition(".base_layer.")
        if MARK in name:
            continue
        if wrapped and leaf == "weight":
            a, b = (tensors[f"{layer}.lora_{side}.default.weight"].float() for side in "AB")
            tensor = (tensor.float() + scaling * (b @ a)).to(tensor.dtype)
        plain[f"{layer}.{leaf}" if wrapped else name] = tensor
    return plain


class Adapter:
    """The adapter in a learner's model: from here on nothing else of the model is trained."""

    def __init__(self, model: Any, folder: str) -> None:
        from peft import PeftModel

        # In the model's own precision, as the engine has it; DeepSpeed keeps float32 masters.
        self.model = PeftModel.from_pretrained(
            model, folder, is_trainable=True, autocast_adapter_dtype=False
        )
        self.settings = self.model.peft_config["default"]
        self.settings.target_modules = sorted(self.settings.target_modules)
        self.settings.base_model_name_or_path = model.name_or_path
        self.scaling = self.settings.lora_alpha / self.settings.r

    def write(self, folder: Path, tensors: Mapping[str, torch.Tensor]) -> None:
        """In peft's form; ``tensors`` by their name in the model."""
        saved = {saved_name(n): t.detach().cpu() for n, t in tensors.items() if MARK in n}
        write(folder, self.settings, saved)


class WithoutAdapter:
    """The frozen reference of a model with an adapter: the same model without it, and no copy."""

    def __init__(
        self,
        adapter: Adapter,
        score: Callable[[Sequence[MicroBatch]], list[torch.Tensor]],
    ) -> None:
        self.adapter = adapter
        self.score = score

    def logprobs(self, micros: Sequence[MicroBatch]) -> list[torch.Tensor]:
        """Log-probabilities [N] of each micro-batch's tokens, in host memory."""
        with self.adapter.model.disable_adapter():
            return self.score(micros)
