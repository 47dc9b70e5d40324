"""Who is compared with whom."""

from __future__ import annotations

import random
from itertools import combinations


def pairs(size: int, *, all_up_to: int, opponents: int, seed: str) -> list[tuple[int, int]]:
    """Pairs of indices below ``size``, each pair once, lower index first.

    Up to ``all_up_to`` all ``size * (size - 1) / 2`` of them. Above, everyone sits in a ring, in an
    order that ``seed`` fixes, and meets the ``opponents / 2`` next on either side: everyone has as
    many opponents, everyone is linked to everyone, and there are ``size * opponents / 2`` pairs.
    """
    if size <= max(all_up_to, opponents + 1):
        return list(combinations(range(size), 2))
    ring = random.Random(seed).sample(range(size), size)
    met = (
        (ring[place], ring[(place + step) % size])
        for place in range(size)
        for step in range(1, opponents // 2 + 1)
    )
    return sorted((min(pair), max(pair)) for pair in met)
