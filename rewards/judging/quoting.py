"""Text of others inside a prompt of ours, between lines that its author could not have written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

KEY_DIGITS = 8


def key_of(texts: Iterable[str]) -> str:
    """A key that none of the texts holds, the same for the same texts.

    It is a hash of all of them. To write the key of a prompt, a text would have to hold a part of
    its own hash, and those of the texts beside it: one guess in 2**32.

    Example: ``key_of(["Fix it.", "done", "I did"])`` is eight hexadecimal digits
    """
    quoted = [clean(text) for text in texts]
    for attempt in range(len(quoted) + 2):
        found = hashlib.blake2b(f"{attempt}".encode(), digest_size=32)
        for text in quoted:
            found.update(f"/{len(text)}/{text}".encode())
        key = found.hexdigest()[:KEY_DIGITS]
        if not any(key in text for text in quoted):
            return key
    raise AssertionError("so many texts that hold their own hash")  # pragma: no cover


def fenced(name: str, text: str, key: str) -> str:
    """A text between a line ``BEGIN name-key`` and a line ``END name-key``.

    Example: ``fenced("first", "done", "4be1a0c2")`` is ``BEGIN first-4be1a0c2``, ``done`` and
    ``END first-4be1a0c2`` on three lines.
    """
    return f"BEGIN {name}-{key}\n{clean(text)}\nEND {name}-{key}"


def clean(text: str) -> str:
    """What can be written as UTF-8: half a surrogate pair is "?"."""
    return text.encode(errors="replace").decode()


def shortened(text: str, limit: int) -> str:
    """At most about ``limit`` characters: the beginning and the end, and how much is left out."""
    if len(text) <= limit:
        return text
    head, tail = limit - limit // 2, limit // 2
    left_out = len(text) - head - tail
    return f"{text[:head]}\n[{left_out} characters left out]\n{text[len(text) - tail :]}"
