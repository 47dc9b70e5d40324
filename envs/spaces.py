"""A Gymnasium space of texts that fits what language models read and write."""

from __future__ import annotations

import string
from typing import Any

import gymnasium


class TextSpace(gymnasium.Space[str]):
    """Every text of at most ``max_bytes`` bytes in UTF-8.

    ``gymnasium.spaces.Text`` needs a finite alphabet and tests every character against it; this one
    looks at the length alone.

    Example: ``"3 of 4 passed" in TextSpace(max_bytes=100)``
    """

    def __init__(self, *, max_bytes: int = 65_536, seed: int | None = None) -> None:
        if max_bytes < 0:
            raise ValueError(f"max_bytes is {max_bytes}; it must not be negative")
        self.max_bytes = max_bytes
        super().__init__(shape=None, dtype=str, seed=seed)

    @property
    def is_np_flattenable(self) -> bool:
        """False: texts are no arrays."""
        return False

    def contains(self, x: Any) -> bool:
        """Is it a text of at most ``max_bytes`` bytes?"""
        if not isinstance(x, str) or len(x) > self.max_bytes:
            return False
        return len(x.encode(errors="surrogatepass")) <= self.max_bytes

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        """Up to 32 printable ASCII characters."""
        size = int(self.np_random.integers(0, min(32, self.max_bytes) + 1))
        letters = self.np_random.integers(0, len(string.printable), size)
        return "".join(string.printable[int(place)] for place in letters)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TextSpace) and other.max_bytes == self.max_bytes

    def __hash__(self) -> int:
        return hash((TextSpace, self.max_bytes))

    def __repr__(self) -> str:
        return f"TextSpace(max_bytes={self.max_bytes})"
