"""When a run must stop making boxes: they run away, or none can be made any more."""

from __future__ import annotations

from palestra.rl.errors import SandboxError

RUNAWAY = 1.5
POLLS = 3
"""So many boxes per planned one, seen so many times in a row, are a runaway (our default)."""


class PoolStopped(SandboxError):
    """The pool gives no boxes any more: it is closed, or its breaker has tripped."""

    def __init__(self, why: str) -> None:
        super().__init__(f"no more boxes: {why}")


class Breaker:
    """Counts, and says in ``problem`` why it tripped; it stays so.

    ``planned`` boxes may exist at once; after ``failures`` boxes in a row that could not be made,
    there is no sense in trying another.

    Example: ``Breaker(planned=8, failures=16).counted(5)``
    """

    def __init__(self, *, planned: int, failures: int) -> None:
        self.problem = ""
        self._planned = planned
        self._failures = failures
        self._failed = 0
        self._over = 0

    def made(self) -> None:
        """A box was made."""
        self._failed = 0

    def failed(self, error: Exception) -> None:
        """A box could not be made, for all tries."""
        self._failed += 1
        if self._failed >= self._failures:
            self.trip(f"{self._failed} boxes in a row could not be made, the last one: {error}")

    def counted(self, alive: int) -> None:
        """One poll: the backend says that ``alive`` boxes of the run exist."""
        self._over = self._over + 1 if alive > RUNAWAY * self._planned else 0
        if self._over >= POLLS:
            self.trip(f"{alive} boxes exist, {self._planned} were planned")

    def trip(self, problem: str) -> None:
        """Trip for another reason."""
        self.problem = self.problem or problem
