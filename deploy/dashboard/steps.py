"""The metrics of finished steps as columns, kept until the journal has changed."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from palestra.deploy.dashboard.runs import Runs
from palestra.rl.errors import UserError

KEPT = 64
"""Runs whose columns are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """Finished steps in order; ``values[name][i]`` belongs to ``steps[i]``, NaN where it is not.

    ``times`` are seconds since the epoch; ``broken`` names the metrics of the last step that are
    infinite or not a number.

    Example: ``Steps(steps=(1,), times=(1.7e9,), values={"reward/mean": (0.5,)})``
    """

    steps: tuple[int, ...] = ()
    times: tuple[float, ...] = ()
    values: dict[str, tuple[float, ...]]
    broken: tuple[str, ...] = ()

    def last(self, name: str) -> float | None:
        """The last value of a metric that is a number."""
        return next((v for v in reversed(self.values.get(name, ())) if not math.isnan(v)), None)


class StepCache:
    """Reads the steps of runs; safe to use from several threads."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._kept: OrderedDict[str, tuple[str, Steps]] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, name: str) -> Steps:
        """The steps of a run; none where its journal cannot be read."""
        fingerprint = self._runs.fingerprint(name)
        with self._lock:
            found = self._kept.get(name)
        if found is None or found[0] != fingerprint:
            found = (fingerprint, self._read(name))
            with self._lock:
                self._kept[name] = found
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
        return found[1]

    def _read(self, name: str) -> Steps:
        try:
            with self._runs.journal(name) as journal:
                rows, times = journal.steps(), journal.finish_times()
        except (UserError, ValueError):
            return Steps(values={})
        names = dict.fromkeys(key for _, metrics in rows for key in metrics)
        return Steps(
            steps=tuple(step for step, _ in rows),
            times=tuple(times.get(step, math.nan) for step, _ in rows),
            values={key: tuple(_number(metrics.get(key)) for _, metrics in rows) for key in names},
            broken=tuple(k for _, last in rows[-1:] for k in last if not _is_finite(last[k])),
        )


def _is_finite(value: object) -> bool:
    return math.isfinite(_number(value))


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def decimated(values: Sequence[float], points: int) -> list[int]:
    """Indexes to draw, at most ``points`` or so: the smallest and largest value of each stretch.

    Example: ``decimated([0, 9, 0, 0], 4) == [0, 1, 2, 3]``
    """
    if len(values) <= points:
        return list(range(len(values)))
    stretch = math.ceil(2 * len(values) / points)
    chosen: set[int] = {0, len(values) - 1}
    for start in range(0, len(values), stretch):
        own = [i for i in range(start, min(start + stretch, len(values))) if values[i] == values[i]]
        if own:
            chosen |= {min(own, key=values.__getitem__), max(own, key=values.__getitem__)}
    return sorted(chosen)
