"""Where ZeRO keeps the float32 masters: which piece of which parameter lies where on this rank."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One parameter's part of a flat tensor: ``count`` elements (0 where another rank has all),
    from ``start`` in the flat tensor and from ``first`` in the parameter. ``split``: other ranks
    have elements of it, too; then every rank holds a Shard of it, in the same order."""

    parameter: torch.Tensor
    shape: torch.Size
    start: int
    first: int
    count: int
    split: bool


def shards(zero: Any, stage: int) -> dict[torch.Tensor, list[Shard]]:
    """What lies in each flat tensor that the optimizer below ``zero`` (DeepSpeed's) steps."""
    return dict(_partitioned(zero) if stage == 3 else _flattened(zero))


def whole(shard: Shard, flat: torch.Tensor) -> torch.Tensor:
    """The parameter-shaped tensor whose pieces lie in ``flat``; a collective if it is split."""
    own = flat[shard.start : shard.start + shard.count]
    if not shard.split:
        return own.view(shard.shape) if shard.count else own
    gathered = flat.new_zeros(shard.shape.numel())
    gathered[shard.first : shard.first + shard.count] = own
    torch.distributed.all_reduce(gathered)
    return gathered.view(shard.shape)


def _flattened(zero: Any) -> Iterator[tuple[torch.Tensor, list[Shard]]]:
    """ZeRO 1 and 2: the parameters of a group in a row, cut into one piece per rank."""
    rank = torch.distributed.get_rank()
    for i, flat in enumerate(zero.single_partition_of_fp32_groups):
        size = flat.numel()
        found = []
        for parameter, offset in zip(
            zero.round_robin_bit16_groups[i], zero.round_robin_bit16_offsets[i], strict=True
        ):
            end = offset + parameter.numel()
            low, high = max(offset, rank * size), min(end, (rank + 1) * size)
            shard = Shard(
                parameter=parameter,
                shape=parameter.shape,
                start=max(0, low - rank * size),
                first=max(0, low - offset),
                count=max(0, high - low),
                split=offset // size != (end - 1) // size,
            )
            if shard.count or shard.split:
                found.append(shard)
        yield flat, found


def _partitioned(zero: Any) -> Iterator[tuple[torch.Tensor, list[Shard]]]:
    """ZeRO 3: every parameter cut into one piece per rank, the last one padded."""
    rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
    for flat, group in zip(zero.fp32_partitioned_groups_flat, zero.fp16_groups, strict=True):
        found, start = [], 0
        for parameter in group:
            part = parameter.partition_numel()
            first = min(rank * part, parameter.ds_numel)
            found.append(
                Shard(
                    parameter=parameter,
                    shape=parameter.ds_shape,
                    start=start,
                    first=first,
                    count=min(part, parameter.ds_numel - first),
                    split=ranks > 1,
                )
            )
            start += part
        yield flat, found
