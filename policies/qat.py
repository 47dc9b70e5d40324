"""INT4 quantisation-aware training: which weights are rounded, and where.

While a module with such weights runs, it finds them rounded; everything else (optimizer, masters,
checkpoints) has them as they are. A gradient reaches them as if nothing had been rounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from palestra.policies.config import QatConfig
from palestra.policies.int4 import GROUP, fake_quantise
from palestra.rl.errors import UserError

KEY = "policy.learner.qat.weights"


def start(model: Any, config: QatConfig) -> frozenset[str]:
    """Round what ``config`` names in every coming forward pass of ``model``, a Hugging Face causal
    LM; the names of those parameters. Under ZeRO 3 to be called after DeepSpeed has put its hooks
    there, which gather what is rounded here."""
    if not config.enabled:
        return frozenset()
    names = find(model, config.weights)
    round_in_forward(model, names)
    return frozenset(names)


def find(model: Any, pattern: str) -> dict[str, tuple[str, ...]]:
    """The parameters to round, each with its names in a checkpoint, where a model may have in many
    tensors what it trains in one (the experts of a layer).

    ``pattern`` is searched in the checkpoint's names. Raises UserError for what cannot be rounded.
    """
    found = {}
    for name, parameter in model.named_parameters():
        # ZeRO 3 leaves nothing in place.
        shape = tuple(getattr(parameter, "ds_shape", parameter.shape))
        saved = _as_saved(model, name, shape)
        hits = [bool(re.search(pattern, part)) for part in saved]
        if not any(hits):
            continue
        if not all(hits):
            part = next(part for part, hit in zip(saved, hits, strict=True) if not hit)
            raise UserError(f"{KEY}: {name} is trained as one, but {part} is not to be quantised")
        _check(model, name, shape, saved)
        found[name] = tuple(saved)
    if not found:
        raise UserError(f"{KEY}: the model has no weight whose name contains {pattern!r}")
    return found


def _as_saved(model: Any, name: str, shape: tuple[int, ...]) -> Mapping[str, torch.Tensor]:
    from transformers.core_model_loading import revert_weight_conversion

    empty = torch.empty(shape, device="meta")
    saved: Mapping[str, torch.Tensor] = revert_weight_conversion(model, {name: empty})
    return saved


def _check(
    model: Any, name: str, shape: tuple[int, ...], saved: Mapping[str, torch.Tensor]
) -> None:
    folder, _, leaf = name.rpartition(".")
    owner = model.get_submodule(folder)
    linear = isinstance(owner, nn.Linear) and leaf == "weight"
    # Some models stack experts with inputs in rows: groups would run across outputs.
    stack = len(shape) == 3 and not getattr(owner, "is_transposed", False)
    if not linear and not stack:
        raise UserError(f"{KEY}: {name} of {type(owner).__name__} cannot be quantised")
    for part, tensor in saved.items():
        if tensor.ndim != 2 or tensor.shape[1] % GROUP:
            found = "x".join(map(str, tensor.shape))
            raise UserError(f"{KEY}: {part} is {found}; it must be a matrix of 32 n columns")


def round_in_forward(model: nn.Module, names: Iterable[str]) -> None:
    """Let the modules of these parameters find them rounded while they run."""
    for name in names:
        folder, _, leaf = name.rpartition(".")
        module = model.get_submodule(folder)
        module.register_forward_pre_hook(partial(_hide, leaf))
        module.register_forward_hook(partial(_show, leaf), always_call=True)


def _hide(leaf: str, module: nn.Module, args: Any) -> None:
    # An attribute of the instance is found before the parameter of that name.
    module.__dict__[leaf] = fake_quantise(module.get_parameter(leaf))


def _show(leaf: str, module: nn.Module, args: Any, output: Any) -> None:
    module.__dict__.pop(leaf, None)
