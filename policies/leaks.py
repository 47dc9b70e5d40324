"""What each side holds while the other has the device, watched from cycle to cycle.

A cycle is one turn of the learner and one of the engine; counters are read when the engine has just
fallen asleep and the learner is still offloaded. The first cycles allocate what is then kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import linear_regression
from typing import TypeAlias

from palestra.rl.errors import EngineError, InfraError

Counters: TypeAlias = Mapping[str, int]

MIB = 1 << 20
ASLEEP_SLACK = 256 * MIB
SEND_SLACK = 32 * MIB
SETTLED = 3
"""Cycles that do not count."""
ENOUGH = 16
"""Cycles after those before a slope means anything."""
RSS_SHARE = 0.03
"""Of a process's memory, and at least as below: it varies with the batches."""
GROWTH = {
    "engine_device_bytes": 16 * MIB,
    "learner_reserved_bytes": 32 * MIB,
    "learner_pinned_bytes": 32 * MIB,
    "engine_rss_bytes": 128 * MIB,
    "learner_rss_bytes": 128 * MIB,
    "engine_open_files": 0.75,
    "learner_open_files": 0.75,
    "engine_children": 0.25,
    "learner_children": 0.25,
}
"""Growth per cycle that is still noise; a counter without meaning on this device is absent."""
ON_DEVICE = ("engine_device_bytes", "learner_reserved_bytes", "learner_pinned_bytes")


def counted(counters: Counters, *, device: bool) -> None:
    """Nothing is missing; those of a GPU may be only where there is none."""
    missing = sorted(set(GROWTH) - set(counters) - (set() if device else set(ON_DEVICE)))
    if missing:
        raise InfraError(f"counters are missing: {', '.join(missing)}")


def asleep(history: Sequence[Counters]) -> None:
    """A sleeping engine gave its memory back: the device holds what it held after the first cycle.

    ``history`` has one entry per sleep; the first was before any cycle.
    """
    name = "engine_device_bytes"
    if len(history) < 3 or name not in history[-1]:
        return
    used, baseline = history[-1][name], history[1][name]
    if used > baseline + ASLEEP_SLACK:
        raise EngineError(
            f"asleep, the device holds {used} bytes; after the first cycle it was {baseline}"
        )


def steady(history: Sequence[Counters]) -> None:
    """No counter grows from cycle to cycle."""
    settled = history[SETTLED:]
    if len(settled) < ENOUGH:
        return
    for name, noise in GROWTH.items():
        values = [counters[name] for counters in settled if name in counters]
        if not values:
            continue
        allowed = max(noise, RSS_SHARE * values[0]) if "rss" in name else noise
        slope = linear_regression(range(len(values)), values).slope
        if slope > allowed:
            raise InfraError(
                f"{name} grows by {slope:.3g} per cycle over {len(values)} cycles, from "
                f"{values[0]} to {values[-1]} (at most {allowed:.3g} is noise)"
            )


def collected(before: int | None, after: int | None) -> None:
    """Device memory of the learner around a transfer: the exported buffer came back.

    None where weights do not travel through device memory.
    """
    if before is None and after is None:
        return
    if before is None or after is None or abs(after - before) > SEND_SLACK:
        raise InfraError(f"the learner held {before} bytes before a transfer and {after} after it")
