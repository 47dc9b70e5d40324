"""What lies in the folder of a Hugging Face checkpoint, without its weights in memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open

from palestra.policies.guards import Shape
from palestra.rl.errors import UserError

INDEX = "model.safetensors.index.json"


def model_config(folder: Path) -> Any:
    """The transformers configuration of the folder; raises UserError for one it cannot read."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"{folder}: transformers cannot read its config.json: {reason}") from error


def empty_model(folder: Path) -> Any:
    """The folder's causal language model on torch's device ``meta``: names and shapes alone. Raises
    UserError where there is none."""
    import torch
    from transformers import AutoModelForCausalLM

    config = model_config(folder)
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config)
    except ValueError as error:
        raise UserError(f"{folder}: {config.model_type} is no causal language model") from error


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of the folder. Raises UserError where one is missing."""
    index = folder / INDEX
    names = {"model.safetensors"}
    if index.is_file():
        names = set(json.loads(index.read_text())["weight_map"].values())
    for name in sorted(names):
        if not (folder / name).is_file():
            raise UserError(f"{folder} holds no {name}; convert its weights to safetensors")
    return [folder / name for name in sorted(names)]


def checkpoint_shapes(folder: Path) -> dict[str, Shape]:
    """Names and shapes of the folder's tensors, from the headers of its files."""
    shapes: dict[str, Shape] = {}
    for file in weight_files(folder):
        with safe_open(file, framework="pt") as tensors:
            names = tensors.keys()
            shapes |= {name: tuple(tensors.get_slice(name).get_shape()) for name in names}
    return shapes
