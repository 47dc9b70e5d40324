"""What a policy is shown of long output: its head, its tail, and how much lies between them."""

from __future__ import annotations

from palestra.rl.types import Observation

MAX_SHOWN = 10_000
"""Bytes of an answer that the policy sees, half of them head and half tail (our default)."""


def observed(data: bytes, *, lost: int = 0) -> Observation:
    """``data`` as text, and as ``elided`` the number of bytes that are left out of its middle.

    ``lost`` counts bytes that are missing in the middle of ``data`` already, which then holds at
    least ``MAX_SHOWN`` bytes. What is not UTF-8, a character cut in two included, is U+FFFD.
    """
    elided = max(0, len(data) + lost - MAX_SHOWN)
    if not elided:
        return Observation(text=data.decode(errors="replace"))
    half = MAX_SHOWN // 2
    head, tail = (part.decode(errors="replace") for part in (data[:half], data[-half:]))
    return Observation(text=f"{head}\n[{elided} bytes left out]\n{tail}", elided=elided)
