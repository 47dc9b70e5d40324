"""PTX samples of a step (K2 report section 3.2.3): drawn from several sources by weight."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from palestra.rl.types import Sample


class Rows(Protocol):
    """Samples that can be asked for by number."""

    @property
    def left_out(self) -> int:
        """Rows found to be no good so far."""
        ...

    def __len__(self) -> int: ...

    def sample(self, index: int) -> Sample | None:
        """The sample of a row; None when the row is no good."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Rows, and their expected share of the samples, relative to the other sources' weights.

    Example: ``Source(rows=demonstrations, weight=1.0)``
    """

    rows: Rows
    weight: float = 1.0


def draw(sources: Sequence[Source], count: int, rng: random.Random) -> list[Sample]:
    """``count`` samples: the source of each is drawn by weight, its row without replacement. Fewer
    when a source has fewer rows, or some that are no good."""
    samples: list[Sample] = []
    for source, share in zip(sources, shares(sources, count, rng), strict=True):
        chosen = rng.sample(range(len(source.rows)), min(share, len(source.rows)))
        drawn = map(source.rows.sample, chosen)
        samples += [sample for sample in drawn if sample is not None]
    return samples


def ptx_metrics(sources: Sequence[Source], samples: Sequence[Sample]) -> dict[str, float]:
    """Samples of a step, and rows that were found to be no good since the process began."""
    if not sources:
        return {}
    left_out = sum(source.rows.left_out for source in sources)
    return {"ptx/samples": float(len(samples)), "ptx/left_out": float(left_out)}


def shares(sources: Sequence[Source], count: int, rng: random.Random) -> list[int]:
    """How many of ``count`` samples come from each source."""
    if len(sources) == 1:
        return [count]
    numbers = range(len(sources))
    drawn = Counter(rng.choices(numbers, [source.weight for source in sources], k=count))
    return [drawn[number] for number in numbers]
