"""Samples of many lengths into rows of equal length, almost without padding.

Samples with the same prompt share it: the prompt stands once in a row and each continuation sees it
and itself. A group of eight answers to one question costs one question, not eight.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from palestra.policies.routers import Piece, experts_of
from palestra.rl.types import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """Rows of packed samples as tensors.

    ``token_ids``, ``positions``, ``segments`` and ``parents`` have shape [R, L]. A segment is a
    prompt or one continuation of it, 0 is padding; ``parents`` is the segment of the token's prompt
    (its own in a prompt). Positions count from the beginning of the prompt. The other tensors have
    shape [N], one entry per token that carries a loss: ``source`` is the flat index of the hidden
    state that predicts it (the token before it), ``target`` its id, ``sample`` the index of its
    sample in the list that was packed; the tokens of a sample keep their order. ``most`` is the
    largest N of this micro-batch on any rank. ``experts`` are the recorded ones of each token
    (``routers.experts_of``), those of a shared prompt the first sibling's.
    """

    token_ids: torch.Tensor
    positions: torch.Tensor
    segments: torch.Tensor
    parents: torch.Tensor
    source: torch.Tensor
    sample: torch.Tensor
    target: torch.Tensor
    policy: torch.Tensor
    logprobs: torch.Tensor
    advantages: torch.Tensor
    ptx: torch.Tensor
    preference: torch.Tensor
    temperature: torch.Tensor
    weight: torch.Tensor
    most: int
    experts: torch.Tensor | None

    def to(self, device: torch.device | str) -> MicroBatch:
        """The same batch on another device."""
        values = {name: getattr(self, name) for name in self.__slots__}
        moved = {n: v.to(device) for n, v in values.items() if isinstance(v, torch.Tensor)}
        return MicroBatch(**{**values, **moved})


@dataclass(frozen=True, slots=True)
class Family:
    """Samples and their indices that begin with the same ``prompt``; it carries no loss."""

    prompt: tuple[int, ...]
    samples: tuple[tuple[int, Sample], ...]

    @property
    def size(self) -> int:
        """Tokens in a row."""
        return len(self.prompt) + sum(
            len(sample.token_ids) - len(self.prompt) for _, sample in self.samples
        )


def families(samples: Sequence[Sample], row_tokens: int) -> list[Family]:
    """Samples by prompt, each family within ``row_tokens`` (or as long as its longest sample);
    samples without a token to learn from are left out."""
    by_prompt: dict[tuple[int, ...], list[tuple[int, Sample]]] = {}
    for index, sample in enumerate(samples):
        learned = next(_learned(sample), None)
        if learned is not None:
            by_prompt.setdefault(sample.token_ids[:learned], []).append((index, sample))
    return [
        Family(prompt, tuple(members[i] for i in row))
        for prompt, members in by_prompt.items()
        for row in rows_of(
            [len(sample.token_ids) - len(prompt) for _, sample in members], row_tokens - len(prompt)
        )
    ]


def _learned(sample: Sample) -> Iterator[int]:
    """Places of the tokens that carry a loss; nothing predicts the first."""
    signals = zip(sample.loss_mask, sample.ptx, sample.preference or sample.ptx, strict=True)
    return (t for t, signal in enumerate(signals) if t and any(signal))


def _losses(families: Iterable[Family]) -> int:
    samples = (sample for family in families for _, sample in family.samples)
    return sum(1 for sample in samples for _ in _learned(sample))


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
    samples: Sequence[Sample],
    *,
    row_tokens: int,
    micro_batch_tokens: int,
    rank: int = 0,
    ranks: int = 1,
) -> list[MicroBatch]:
    """Pack samples into rows and rows into micro-batches of at most ``micro_batch_tokens`` tokens
    (at least one row each), each as wide as its longest row.

    Of ``ranks`` that share the samples by whole rows, the micro-batches of one: every rank has as
    many, of the same width; one without a row left has a prompt alone and learns nothing.
    """
    packed = families(samples, row_tokens)
    sizes = [family.size for family in packed]
    rows = [
        ([packed[i] for i in row], sum(sizes[i] for i in row)) for row in rows_of(sizes, row_tokens)
    ]
    rows.sort(key=lambda row: -row[1])
    batches: list[MicroBatch] = []
    while rows:
        width = rows[0][1]
        count = ranks * max(1, micro_batch_tokens // width)
        shares = [rows[r:count:ranks] for r in range(ranks)]
        most = max(sum(_losses(families) for families, _ in share) for share in shares)
        own = [_Row(families) for families, _ in shares[rank]]
        # A row again would have its experts compared, and counted, again.
        idle = Family(rows[0][0][0].prompt, ())
        batches.append(_to_tensors(own or [_Row([idle])], width, most))
        rows = rows[count:]
    return batches


class _Row:
    """One row while it is laid out; ``learned`` has one entry per token with a loss."""

    def __init__(self, families: Sequence[Family]) -> None:
        self.ids: list[int] = []
        self.positions: list[int] = []
        self.segments: list[int] = []
        self.parents: list[int] = []
        self.pieces: list[Piece] = []
        self.learned: list[tuple[int, int, Sample, int]] = []
        segment = 0
        for family in families:
            parent = segment = segment + 1
            split = len(family.prompt)
            recorded = (sample.routing for _, sample in family.samples if sample.routing)
            self._append(family.prompt, Piece(next(recorded, None), 0, split), segment, parent)
            end = len(self.ids) - 1
            for index, sample in family.samples:
                segment += 1
                start = len(self.ids) - split
                own = Piece(sample.routing, split, len(sample.token_ids))
                self._append(sample.token_ids[split:], own, segment, parent)
                self.learned += [
                    (end if t == split else start + t - 1, index, sample, t)
                    for t in _learned(sample)
                ]

    def _append(self, ids: Sequence[int], piece: Piece, segment: int, parent: int) -> None:
        self.ids += ids
        self.pieces.append(piece)
        self.positions += range(piece.first, piece.last)
        self.segments += [segment] * len(ids)
        self.parents += [parent] * len(ids)


def _to_tensors(rows: Sequence[_Row], width: int, most: int) -> MicroBatch:
    learned = [
        (r * width + source, index, sample, t)
        for r, row in enumerate(rows)
        for source, index, sample, t in row.learned
    ]

    def padded(rows: Sequence[Sequence[int]]) -> torch.Tensor:
        return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], dtype=torch.long)

    def column(values: Iterable[float], dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.tensor(list(values), dtype=dtype)

    return MicroBatch(
        token_ids=padded([row.ids for row in rows]),
        positions=padded([row.positions for row in rows]),
        segments=padded([row.segments for row in rows]),
        parents=padded([row.parents for row in rows]),
        source=column((source for source, _, _, _ in learned), torch.long),
        sample=column((index for _, index, _, _ in learned), torch.long),
        target=column((sample.token_ids[t] for _, _, sample, t in learned), torch.long),
        policy=column((sample.loss_mask[t] for _, _, sample, t in learned), torch.bool),
        logprobs=column(sample.logprobs[t] for _, _, sample, t in learned),
        advantages=column(sample.advantages[t] for _, _, sample, t in learned),
        ptx=column(sample.ptx[t] for _, _, sample, t in learned),
        preference=column(
            sample.preference[t] if sample.preference else 0.0 for _, _, sample, t in learned
        ),
        temperature=column(sample.temperature for _, _, sample, _ in learned),
        weight=column(sample.weight for _, _, sample, _ in learned),
        most=most,
        experts=experts_of([row.pieces for row in rows], width),
    )
