"""Attention over sequences, where everything else in the model runs over packed rows.

A row holds prompts and their continuations. For attention every continuation is put behind its
prompt, sequences of like length are stacked, and plain causal attention without a mask takes them;
its results go back to their places in the rows. So its cost and memory follow the sequences, not
the width of a row, and nothing of shape [L, L] ever exists.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from palestra.rl.errors import UserError

NAME = "sdpa_over_sequences"
SHORTEST = 0.75
"""Length of a stack's shortest sequence as a share of its longest, at least: the rest is padding.
Our default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequences:
    """Where the sequences of a micro-batch lie in its rows of shape [R, L].

    ``stacks`` holds flat places [S, T], padded at the end; ``lengths`` says how many of them count,
    [S] for each stack. ``back`` [R * L] finds every place among the results of all stacks, one
    behind the other; padding finds any.
    """

    stacks: tuple[torch.Tensor, ...]
    lengths: tuple[torch.Tensor, ...]
    back: torch.Tensor

    def of(self, *tensors: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
        """Each stack's part of tensors of shape [R, H, L, D], as [S, H, T, D]."""
        flat = [tensor.transpose(1, 2).flatten(0, 1) for tensor in tensors]
        for places in self.stacks:
            yield tuple(_at(places, tensor).transpose(1, 2) for tensor in flat)


def sequences_of(segments: torch.Tensor, parents: torch.Tensor) -> Sequences:
    """The sequences of rows as ``packing.MicroBatch`` describes them: a continuation behind its
    prompt, or a prompt that has none; on the device of ``segments``."""
    found = [
        places
        for row, (own, above) in enumerate(zip(segments.tolist(), parents.tolist(), strict=True))
        for places in _in_row(own, above, row * len(own))
    ]
    found.sort(key=lambda places: -len(places))
    back = torch.zeros(segments.numel(), dtype=torch.long)
    stacks, lengths = [], []
    start = 0
    while found:
        longest = len(found[0])
        here = [places for places in found if len(places) >= SHORTEST * longest]
        found = found[len(here) :]
        for number, places in enumerate(here):
            first = start + number * longest
            back[torch.tensor(places)] = torch.arange(first, first + len(places))
        stacks.append(torch.tensor([[*p, *[p[0]] * (longest - len(p))] for p in here]))
        lengths.append(torch.tensor([len(places) for places in here]))
        start += len(here) * longest
    device = segments.device
    return Sequences(
        stacks=tuple(stack.to(device) for stack in stacks),
        lengths=tuple(length.to(device) for length in lengths),
        back=back.to(device),
    )


def _in_row(segments: list[int], parents: list[int], start: int) -> list[list[int]]:
    places: dict[int, list[int]] = {}
    parent: dict[int, int] = {}
    for place, (segment, above) in enumerate(zip(segments, parents, strict=True), start):
        if segment:
            places.setdefault(segment, []).append(place)
            parent[segment] = above
    continued = {above for segment, above in parent.items() if segment != above}
    return [
        own if parent[segment] == segment else places[parent[segment]] + own
        for segment, own in places.items()
        if segment not in continued
    ]


def attend(
    layer: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: None,
    *,
    sequences: Sequences,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """An attention function of transformers: from [R, H, L, D] to [R, L, H, D]. Values narrower
    than keys (latent attention) are padded: torch has kernels without [T, T] for equal widths only.

    Raises ``UserError`` for a sequence longer than the window of a layer, which is not kept here.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    window = more.get("sliding_window")
    longest = max(stack.shape[1] for stack in sequences.stacks)
    if window and longest > window:
        raise UserError(
            f"policy.model: a layer sees {window} tokens, and a sample has {longest}; set "
            f"rollout.max_context_length = {window}, or choose a model without sliding windows"
        )
    more |= {"is_causal": True}
    width = value.shape[-1]
    if width < key.shape[-1]:
        value = functional.pad(value, (0, key.shape[-1] - width))
    results = [
        sdpa_attention_forward(layer, *stack, None, **more)[0][..., :width].flatten(0, 1)
        for stack in sequences.of(query, key, value)
    ]
    rows, length = query.shape[0], query.shape[2]
    found = _at(sequences.back, torch.cat(results))
    return found.reshape(rows, length, *found.shape[1:]), None


def _at(places: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """``tensor[places]`` with a gradient that is added up in the same order every time: that of
    indexing is not, where several threads meet at the places of a shared prompt."""
    found = functional.embedding(places, tensor.flatten(1))
    return found.reshape(*places.shape, *tensor.shape[1:])


def use(model: Any, name: str = NAME, forward: Any = attend) -> None:
    """Let a Hugging Face model attend with ``forward``, by default over sequences; its own forward
    pass then wants ``sequences``. Raises ``UserError`` for a model that cannot take sdpa."""
    from transformers import AttentionInterface

    if model.config._attn_implementation not in ("sdpa", NAME):
        raise UserError("policy.model: the learner needs a model whose attention can be sdpa")
    AttentionInterface.register(name, forward)
    model.set_attn_implementation(name)
