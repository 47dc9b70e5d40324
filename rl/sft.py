"""Supervised warm start: batches of demonstrations, and of plain text before them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from palestra.rl.types import Batch, Sample


def epochs(
    samples_of: Callable[[int], Sequence[Sample]], *, steps: int, batch_size: int, seed: int
) -> Iterator[Batch]:
    """``steps`` batches over epochs of ``samples_of(epoch)``, shuffled; a short rest of an epoch
    is filled up from the next. Deterministic in ``seed``."""
    pool: list[Sample] = []
    epoch = 0
    for step in range(steps):
        while len(pool) < batch_size:
            fresh = list(samples_of(epoch))
            if not fresh:
                raise ValueError("there is nothing to learn from")
            random.Random(f"{seed}/sft/{epoch}").shuffle(fresh)
            pool += fresh
            epoch += 1
        yield Batch(step=step, samples=tuple(pool[:batch_size]))
        del pool[:batch_size]
