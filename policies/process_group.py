"""The process group of the learner's ranks, and what they add up."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from palestra.policies.config import LearnerConfig
from palestra.rl.errors import UserError


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among the learner's ranks. Several meet at a ``listener`` of whoever starts
    them, on ``host`` and ``port``."""

    rank: int = 0
    size: int = 1
    host: str = "127.0.0.1"
    port: int = 0


ALONE = Ranks()
TEXT_BYTES = 400


def listener() -> Any:
    """A store on a free ``port`` where ranks meet; it must live as long as they do."""
    return torch.distributed.TCPStore(  # type: ignore[attr-defined]
        "localhost", 0, is_master=True, wait_for_workers=False
    )


def join(config: LearnerConfig, ranks: Ranks) -> torch.device:
    """Process group, threads and device; must run before DeepSpeed is imported."""
    if int(os.environ.get("WORLD_SIZE", ranks.size)) != ranks.size:
        raise UserError("unset WORLD_SIZE: the learner's ranks are not started by a launcher")
    cuda = torch.cuda.is_available()
    if not cuda:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        torch.set_num_threads(config.threads)
    # The only GPU that we see is number 0, whatever rank a launcher around us gave this process.
    os.environ.update({"RANK": str(ranks.rank), "WORLD_SIZE": str(ranks.size), "LOCAL_RANK": "0"})
    if not torch.distributed.is_initialized():
        store = torch.distributed.TCPStore(  # type: ignore[attr-defined]
            ranks.host, ranks.port, is_master=ranks == ALONE, wait_for_workers=False
        )
        # No device_id: with it a second weight-sync group hangs after one step.
        torch.distributed.init_process_group(
            "nccl" if cuda else "gloo", store=store, rank=ranks.rank, world_size=ranks.size
        )
    return torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")


def said_by_all(own: str, device: torch.device) -> list[str]:
    """A short text of every rank, in order; a collective."""
    padded = list(own.encode()[:TEXT_BYTES].ljust(TEXT_BYTES, b"\0"))
    mine = torch.tensor(padded, dtype=torch.uint8, device=device)
    texts = [torch.empty_like(mine) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(texts, mine)
    return [bytes(text.tolist()).rstrip(b"\0").decode(errors="replace") for text in texts]


def together(values: Mapping[str, float], device: torch.device) -> dict[str, float]:
    """Sums over all ranks, and maxima where the name begins with ``max:``; all ranks have the same
    names."""
    if torch.distributed.get_world_size() == 1:
        return dict(values)
    merged: dict[str, float] = {}
    for operation, largest in (("SUM", False), ("MAX", True)):
        names = sorted(name for name in values if name.startswith("max:") is largest)
        numbers = torch.tensor([values[n] for n in names], dtype=torch.float64, device=device)
        torch.distributed.all_reduce(numbers, op=getattr(torch.distributed.ReduceOp, operation))
        merged |= dict(zip(names, numbers.tolist(), strict=True))
    return merged
