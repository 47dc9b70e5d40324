"""Folders of a policy in four bits: packed for inference, or rounded and still floats.

Both are made from a Hugging Face folder with the weights as they are trained, file by file and
without a model in memory.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from palestra.policies import qat
from palestra.policies.config import QatConfig
from palestra.policies.hf_folder import (
    INDEX,
    checkpoint_shapes,
    empty_model,
    model_config,
    weight_files,
)
from palestra.policies.int4 import GROUP, dequantise, fake_quantise, pack, quantise, scales
from palestra.rl.errors import CheckpointError, UserError

STATE = ("learner.json", "latest")
"""What belongs to the learner alone in a checkpoint, beside ``native/``."""

Change: TypeAlias = Callable[[str, torch.Tensor], dict[str, torch.Tensor]]


def export(folder: Path, target: Path, config: QatConfig) -> None:
    """Write ``target`` as compressed-tensors' ``pack-quantized``, which vLLM and transformers load.

    Raises UserError for what cannot be packed, or where ``target`` exists.
    """
    if target.exists():
        raise UserError(f"{target}: exists already; choose another folder")
    if is_packed(folder):
        raise UserError(f"{folder}: is quantised already; export the checkpoint it was made from")
    names = in_checkpoint(folder, config)
    shapes = checkpoint_shapes(folder)
    floats = [name for name, shape in shapes.items() if len(shape) == 2 and name not in names]
    settings = {"quantization_config": quantization_config(floats)}
    _rewrite(folder, target, lambda n, t: packed(n, t) if n in names else {n: t}, settings)


def played_folder(folder: Path, target: Path, config: QatConfig) -> Path:
    """The folder that an engine without a kernel for four bits loads to compute what the learner
    computes: ``folder`` itself without quantisation, else ``target``, its rounded copy."""
    if not config.enabled or is_packed(folder):
        return folder
    if not target.exists():
        names = in_checkpoint(folder, config)
        _rewrite(folder, target, lambda n, t: {n: fake_quantise(t) if n in names else t}, {})
    return target


def is_packed(folder: Path) -> bool:
    """Does the folder say that its weights are quantised?"""
    return hasattr(model_config(folder), "quantization_config")


def in_checkpoint(folder: Path, config: QatConfig) -> frozenset[str]:
    """Names of the folder's tensors that ``config`` rounds, the same that the learner finds."""
    found = qat.find(empty_model(folder), config.weights).values()
    names = frozenset(name for parts in found for name in parts)
    if missing := sorted(names - checkpoint_shapes(folder).keys()):
        raise UserError(f"{folder}: holds no {missing[0]}; save it with transformers first")
    return names


def packed(name: str, weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """What a checkpoint holds in the place of ``NAME.weight``, a matrix [N, K]: ``weight_packed``
    [N, K/8], ``weight_scale`` [N, K/32], ``weight_shape`` [2]. Raises UserError if it is not finite
    before and after."""
    scale = scales(weight)
    quantised = quantise(weight, scale)
    if not dequantise(quantised, scale).isfinite().all():
        raise UserError(f"{name}: holds NaN, infinity or numbers too large for {weight.dtype}")
    return {
        f"{name}_packed": pack(quantised),
        f"{name}_scale": scale,
        f"{name}_shape": torch.tensor(weight.shape),
    }


def quantization_config(floats: Sequence[str]) -> dict[str, Any]:
    """The entry of ``config.json``; ``floats`` names the matrices that are not packed."""
    weights = {
        "num_bits": 4,
        "type": "int",
        "symmetric": True,
        "strategy": "group",
        "group_size": GROUP,
        "dynamic": False,
        "observer": "minmax",
    }
    return {
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
        "format": "pack-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
        "ignore": [name.removesuffix(".weight") for name in floats],
    }


def _rewrite(folder: Path, target: Path, change: Change, settings: dict[str, Any]) -> None:
    """A copy with other tensors and with ``settings`` in its config, renamed into place whole."""
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        for file in folder.iterdir():
            if file.is_file() and file.suffix != ".safetensors" and file.name not in STATE:
                shutil.copyfile(file, partial / file.name)
        _rewrite_weights(folder, partial, change)
        config = json.loads((folder / "config.json").read_text()) | settings
        (partial / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        partial.rename(target)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot write {target}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _rewrite_weights(folder: Path, target: Path, change: Change) -> None:
    files: dict[str, str] = {}
    size = 0
    for file in weight_files(folder):
        tensors: dict[str, torch.Tensor] = {}
        with safe_open(file, framework="pt") as old:
            for name in old.keys():
                tensors |= change(name, old.get_tensor(name))
        save_file(tensors, target / file.name, metadata={"format": "pt"})
        files |= dict.fromkeys(tensors, file.name)
        size += sum(tensor.nbytes for tensor in tensors.values())
    if (folder / INDEX).is_file():
        index = {"metadata": {"total_size": size}, "weight_map": files}
        (target / INDEX).write_text(json.dumps(index, indent=2) + "\n")
