"""Keeping the head and the tail of a stream; runs on both sides of a box, so it imports nothing."""

from __future__ import annotations


class Capture:
    """Keeps the first and last ``limit`` / 2 bytes of a stream and counts the rest.

    Without ``tail`` only the first ``limit`` bytes are kept.
    """

    def __init__(self, limit: int, *, tail: bool = True) -> None:
        self._head_limit = limit // 2 if tail else limit
        self._tail_limit = limit - self._head_limit
        self._head = bytearray()
        self._tail = bytearray()
        self._total = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        self._total += len(data)
        room = self._head_limit - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        self._tail += data[-self._tail_limit :] if self._tail_limit else b""
        if len(self._tail) > self._tail_limit:
            del self._tail[: len(self._tail) - self._tail_limit]

    @property
    def kept(self) -> bytes:
        """Head and tail, joined."""
        return bytes(self._head + self._tail)

    @property
    def elided(self) -> int:
        """Bytes dropped between them."""
        return self._total - len(self._head) - len(self._tail)
