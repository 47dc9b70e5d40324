"""Samples of many lengths into rows of equal length, with almost no padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from palestra.rl.types import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """Rows of packed samples as tensors.

    ``token_ids``, ``positions`` and ``segments`` have shape [R, L]; a segment is one sample, 0 is
    padding, positions restart at 0 in each segment. The other tensors have shape [N], one entry
    per token that carries a loss: ``source`` is the flat index of the hidden state that predicts
    it (one before it), ``target`` its id.
    """

    token_ids: torch.Tensor
    positions: torch.Tensor
    segments: torch.Tensor
    source: torch.Tensor
    target: torch.Tensor
    policy: torch.Tensor
    logprobs: torch.Tensor
    advantages: torch.Tensor
    ptx: torch.Tensor
    temperature: torch.Tensor

    def to(self, device: torch.device | str) -> MicroBatch:
        """The same batch on another device."""
        moved = {name: getattr(self, name).to(device) for name in self.__slots__}
        return MicroBatch(**moved)


def rows_of(lengths: Sequence[int], row_tokens: int) -> list[list[int]]:
    """First-fit-decreasing bin packing: indices per row, no row above ``max(row_tokens, longest)``.

    Deterministic: ties keep their order.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    capacity = max([row_tokens, *lengths])
    rows: list[list[int]] = []
    free: list[int] = []
    for index in order:
        need = lengths[index]
        fit = next((row for row, space in enumerate(free) if space >= need), None)
        if fit is None:
            rows.append([index])
            free.append(capacity - need)
        else:
            rows[fit].append(index)
            free[fit] -= need
    return rows


def micro_batches(
    samples: Sequence[Sample], *, row_tokens: int, micro_batch_tokens: int
) -> list[MicroBatch]:
    """Pack samples into rows and rows into micro-batches of at most ``micro_batch_tokens`` tokens
    (at least one row each), each as wide as its longest row. Samples without tokens are left
    out."""
    samples = [sample for sample in samples if sample.token_ids]
    lengths = [len(sample.token_ids) for sample in samples]
    rows = [
        ([samples[i] for i in row], sum(lengths[i] for i in row))
        for row in rows_of(lengths, row_tokens)
    ]
    rows.sort(key=lambda row: -row[1])
    batches: list[MicroBatch] = []
    while rows:
        width = rows[0][1]
        count = max(1, micro_batch_tokens // width)
        batches.append(_to_tensors([row for row, _ in rows[:count]], width))
        rows = rows[count:]
    return batches


def _to_tensors(rows: Sequence[Sequence[Sample]], width: int) -> MicroBatch:
    token_ids = torch.zeros((len(rows), width), dtype=torch.long)
    positions = torch.zeros_like(token_ids)
    segments = torch.zeros_like(token_ids)
    source: list[int] = []
    target: list[int] = []
    policy: list[bool] = []
    signals: list[tuple[float, float, float, float]] = []
    for r, row in enumerate(rows):
        start = 0
        for s, sample in enumerate(row, 1):
            size = len(sample.token_ids)
            token_ids[r, start : start + size] = torch.tensor(sample.token_ids)
            positions[r, start : start + size] = torch.arange(size)
            segments[r, start : start + size] = s
            for t in range(1, size):
                if sample.loss_mask[t] or sample.ptx[t]:
                    source.append(r * width + start + t - 1)
                    target.append(sample.token_ids[t])
                    policy.append(sample.loss_mask[t])
                    signals.append(
                        (
                            sample.logprobs[t],
                            sample.advantages[t],
                            sample.ptx[t],
                            sample.temperature,
                        )
                    )
            start += size
    columns = torch.tensor(signals, dtype=torch.float32).reshape(-1, 4)
    return MicroBatch(
        token_ids=token_ids,
        positions=positions,
        segments=segments,
        source=torch.tensor(source, dtype=torch.long),
        target=torch.tensor(target, dtype=torch.long),
        policy=torch.tensor(policy, dtype=torch.bool),
        logprobs=columns[:, 0],
        advantages=columns[:, 1],
        ptx=columns[:, 2],
        temperature=columns[:, 3],
    )


def attention_mask(segments: torch.Tensor) -> torch.Tensor:
    """Boolean [R, 1, L, L]: causal, and only within a segment (padding sees itself)."""
    length = segments.shape[1]
    causal = torch.ones((length, length), dtype=torch.bool, device=segments.device).tril()
    same = segments[:, None, :, None] == segments[:, None, None, :]
    return same & causal
