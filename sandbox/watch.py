"""How long a check may take, and reading what the process that runs it answers.

Runs inside the box: standard library only.
"""

from __future__ import annotations

import os
import select
import time

from palestra.sandbox.answers import ERROR, TIMEOUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_HEADER = 9
# A busy check is stopped after one limit of processor time, an idle one after 1.5 limits by the
# clock: on a crowded machine a check that gets little processor time is slow, not hung.
_IDLE_LIMITS = 1.5
_IDLE_CPU_S = 0.001
WALL_LIMITS = 10.0


class Clock:
    """How much of its time a check has left, by the processor time of ``children``."""

    def __init__(self, children: list[int], check_s: float) -> None:
        self._children = children
        self._check_s = check_s
        self.start()

    def start(self) -> None:
        """Begin anew, for the next check."""
        self._since = self._moved = time.monotonic()
        self._cpu = self._last = self._used()

    @property
    def spent(self) -> float:
        """Seconds since the start, by the clock."""
        return time.monotonic() - self._since

    def left(self) -> float:
        """Seconds that are left; none when it has to be stopped."""
        now, used = time.monotonic(), self._used()
        if used - self._last > _IDLE_CPU_S:
            self._last, self._moved = used, now
        idle = self._moved + _IDLE_LIMITS * self._check_s - now
        wall = self._since + WALL_LIMITS * self._check_s - now
        return min(self._check_s - (used - self._cpu), idle, wall)

    def _used(self) -> float:
        total = 0.0
        for pid in self._children:
            try:
                # The processor-time clock of another process, as clock_getcpuclockid(3) forms it.
                total += time.clock_gettime((~pid << 3) | 2)
            except OSError:
                continue
        return total


class Watch:
    """Reads the answers of one child until all came, one hangs, or the child ends."""

    def __init__(
        self,
        fd: int,
        children: list[int],
        pending: list[int],
        kinds: bytes,
        check_s: float,
        token: bytes,
    ) -> None:
        self._fd = fd
        self._children = children
        self._pending = pending
        self._kinds = kinds
        self._token = token
        self._buffer = bytearray()
        self.clock = Clock(children, check_s)

    def run(self, emit: Callable[[int, bytes, bytes], None]) -> tuple[bytes, bytes]:
        """What to say of the first check that is left, if any is."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        exited = os.pidfd_open(self._children[0])
        poll.register(exited, select.POLLIN)
        try:
            while self._pending:
                ready = [fd for fd, _ in poll.poll(max(20.0, self.clock.left() * 1000))]
                data = os.read(self._fd, 1 << 16) if self._fd in ready else b""
                if ready and not data:
                    return ERROR, b"the process ended"
                if not ready and self.clock.left() <= 0:
                    return TIMEOUT, f"no answer after {self.clock.spent:.1f} s".encode()
                self._buffer += data
                if not self._take(emit):
                    return ERROR, b"malformed answer"
        finally:
            os.close(exited)
        return ERROR, b""

    def _take(self, emit: Callable[[int, bytes, bytes], None]) -> bool:
        while len(self._buffer) >= _HEADER:
            size = int.from_bytes(self._buffer[:4], "big")
            index = int.from_bytes(self._buffer[4:8], "big")
            kind = bytes(self._buffer[8:_HEADER])
            if index not in self._pending or kind not in self._kinds or size > 1 << 24:
                return False
            if len(self._buffer) < _HEADER + size:
                return True
            data = bytes(self._buffer[_HEADER : _HEADER + size])
            if not data.startswith(self._token):
                return False
            emit(index, kind, data[len(self._token) :])
            self._pending.remove(index)
            del self._buffer[: _HEADER + size]
            self.clock.start()
        return True
