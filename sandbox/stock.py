"""The boxes of a pool by what is done with them, and the line of those who wait for one.

Nothing here waits or knows a backend: it decides who gets what.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Sized
from dataclasses import dataclass

from palestra.sandbox.base import Box, BoxSpec


@dataclass(slots=True, eq=False, kw_only=True)
class Slot:
    """One box. ``kind`` is that of its ``BoxSpec`` (``kind_of``), ``made`` when it was made
    (seconds of the monotonic clock), ``fresh`` what it looked like then, if anybody looked.
    ``ending`` is what removes it or makes it as new."""

    box: Box
    kind: str
    made: float
    fresh: str = ""
    ending: asyncio.Task[None] | None = None


def kind_of(spec: BoxSpec) -> str:
    """Equal for boxes that can stand for each other; empty for one with a key, as none can."""
    env, labels = sorted(spec.env.items()), sorted(spec.labels.items())
    return (
        ""
        if spec.key
        else repr((spec.image, spec.folder, spec.scratch, env, spec.limits, spec.ttl, labels))
    )


class Stock:
    """Gives out ready boxes and turns at making one, first come, first served.

    At most ``places`` boxes exist, those included that are being made (``making``, at most
    ``turns``) or removed (``closing``), and those that may still come of ``late``, creations that
    were given up. ``refilling`` are those among ``making`` that nobody waits for, by kind.
    """

    def __init__(self, *, places: int, turns: int, late: Sized) -> None:
        self.places = places
        self.turns = turns
        self.making = 0
        self.refilling: Counter[str] = Counter()
        self.ready: list[Slot] = []
        self.leased: set[Slot] = set()
        self.closing: set[Slot] = set()
        self._late = late
        self._line: deque[tuple[str, asyncio.Future[Slot | None]]] = deque()

    @property
    def creating(self) -> int:
        """Creations under way, given up or not."""
        return self.making + len(self._late)

    @property
    def free(self) -> int:
        """Boxes that may be begun now; below 0 when some came that had been given up."""
        known = len(self.ready) + len(self.leased) + len(self.closing)
        return self.places - known - self.creating

    @property
    def waiting(self) -> int:
        """Those who have got nothing yet."""
        return sum(not turn.done() for _, turn in self._line)

    def counts(self) -> dict[str, int]:
        """Who wait, and boxes by what is done with them."""
        return {
            "waiting": self.waiting,
            "creating": self.creating,
            "spare": len(self.ready),
            "leased": len(self.leased),
            "closing": len(self.closing),
        }

    def ask(self, kind: str) -> asyncio.Future[Slot | None]:
        """Stand in line. The result is a box of that kind, leased, or None: a turn at making one,
        counted in ``making``. Whoever stops waiting says so with ``withdraw``."""
        turn: asyncio.Future[Slot | None] = asyncio.get_running_loop().create_future()
        self._line.append((kind, turn))
        return turn

    def withdraw(self, turn: asyncio.Future[Slot | None]) -> None:
        """Wait no longer; what was given in the meantime is taken back."""
        if not turn.done():
            turn.cancel()
        elif not turn.cancelled() and not turn.exception():
            slot = turn.result()
            if slot is None:
                self.making -= 1
            elif slot in self.leased:
                self.shelve(slot)

    def refuse(self, error: Exception) -> None:
        """Raise ``error`` in all who wait."""
        for _, turn in self._line:
            if not turn.done():
                turn.set_exception(error)

    def serve(self) -> None:
        """Give what there is to those who wait, in their order."""
        self._line = deque((kind, turn) for kind, turn in self._line if not turn.done())
        for kind, turn in self._line:
            slot = next((slot for slot in self.ready if slot.kind == kind), None)
            if slot is not None:
                self.ready.remove(slot)
                self.leased.add(slot)
                turn.set_result(slot)
            elif self._can_make:
                self.making += 1
                turn.set_result(None)

    def refill(self, kind: str, spare: int) -> bool:
        """Take a turn at making a box that nobody waits for; False where ``spare`` of that kind are
        there or on their way, or somebody else needs the turn."""
        have = self.refilling[kind] + sum(slot.kind == kind for slot in self.ready)
        if have >= spare or self.waiting or not self._can_make:
            return False
        self.making += 1
        self.refilling[kind] += 1
        return True

    def surplus(self) -> list[Slot]:
        """Ready boxes whose places are needed by those who wait for boxes of other kinds."""
        short = self.waiting - max(0, self.free) - len(self.closing)
        return self.ready[: max(0, short)]

    def shelve(self, slot: Slot) -> None:
        """Make a box ready for whoever asks."""
        self.leased.discard(slot)
        self.closing.discard(slot)
        self.ready.append(slot)

    def withhold(self, slot: Slot) -> bool:
        """Nobody gets this box any more; False where that is so already."""
        if slot in self.closing or (slot not in self.leased and slot not in self.ready):
            return False
        self.leased.discard(slot)
        if slot in self.ready:
            self.ready.remove(slot)
        self.closing.add(slot)
        return True

    @property
    def _can_make(self) -> bool:
        return self.free > 0 and self.making < self.turns
