"""How long boxes take: to start, to run a command, and whole lives per second."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from palestra.sandbox.base import Backend, BoxSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds that boxes took, one after the other; a cycle is create, exec and close.

    Example: ``(await timing(Bubblewrap(), 20)).summary()["cycles_per_s"]``
    """

    start: Sequence[float]
    exec: Sequence[float]
    cycle: Sequence[float]

    def summary(self) -> Mapping[str, object]:
        """``start_ms`` and ``exec_ms`` by percentile, and ``cycles_per_s``."""
        return {
            "start_ms": percentiles_ms(self.start),
            "exec_ms": percentiles_ms(self.exec),
            "cycles_per_s": round(len(self.cycle) / sum(self.cycle), 2),
        }


async def timing(
    backend: Backend, cycles: int, argv: Sequence[str] | str = ("/bin/true",), *, key: str = ""
) -> Timing:
    """Make ``cycles`` boxes, run ``argv`` in each and remove it; raises ``SandboxError``.

    With a ``key`` the boxes are called by it and their number.
    """
    start: list[float] = []
    run: list[float] = []
    cycle: list[float] = []
    for number in range(cycles):
        spec = BoxSpec(key=f"{key}-{number}") if key else None
        began = time.perf_counter()
        async with backend.open(spec) as box:
            made = time.perf_counter()
            await box.exec(argv)
            start.append(made - began)
            run.append(time.perf_counter() - made)
        cycle.append(time.perf_counter() - began)
    return Timing(start=start, exec=run, cycle=cycle)


def percentiles_ms(seconds: Sequence[float]) -> Mapping[str, float]:
    """Median and 95th percentile in milliseconds, of one value or more."""
    ordered = sorted(seconds)
    last = ordered[min(len(ordered) - 1, round(0.95 * len(ordered)))]
    return {"p50": round(statistics.median(ordered) * 1e3, 3), "p95": round(last * 1e3, 3)}
