"""What lies in the folder of a Hugging Face checkpoint, without a model."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import safe_open

from palestra.policies.guards import Shape
from palestra.rl.errors import UserError

INDEX = "model.safetensors.index.json"


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
