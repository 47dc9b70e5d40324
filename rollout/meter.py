"""Where the wall time of overlapping work goes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Meter:
    """Attributes each moment to exactly one lane: the first of ``lanes`` with something under way,
    or ``idle`` when none has. Seconds of all lanes add up to the time since ``restart``.
    """

    lanes = ("learn", "sync", "checkpoint", "generate", "grade", "environment", "reward")

    def __init__(self) -> None:
        self._busy: Counter[str] = Counter()
        self.restart()

    def restart(self) -> None:
        """Forget all seconds; work under way goes on being counted."""
        self.seconds: dict[str, float] = {}
        self._since = time.perf_counter()

    @contextmanager
    def busy(self, lane: str) -> Iterator[None]:
        """Mark one piece of work on a lane."""
        self._settle()
        self._busy[lane] += 1
        try:
            yield
        finally:
            self._settle()
            self._busy[lane] -= 1

    def read(self) -> dict[str, float]:
        """Seconds by lane up to now."""
        self._settle()
        return dict(self.seconds)

    def _settle(self) -> None:
        now = time.perf_counter()
        lane = next((name for name in self.lanes if self._busy[name]), "idle")
        self.seconds[lane] = self.seconds.get(lane, 0.0) + now - self._since
        self._since = now
