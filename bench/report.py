"""What every benchmark writes: one JSON file of figures, and the same as a table."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
from collections.abc import Mapping
from pathlib import Path


def machine_of() -> dict[str, object]:
    """What the figures were measured on."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30, 1),
        "python": platform.python_version(),
        "system": platform.system(),
    }


def spread(
    values: Mapping[int, float],
    unit: str,
    target: str = "reported",
    met: bool | None = None,
    *,
    over: str = "seeds",
) -> dict[str, object]:
    """A figure of several values, by seed or whatever ``over`` names: mean, range, and each."""
    return {
        "value": statistics.fmean(values.values()),
        "min": min(values.values()),
        "max": max(values.values()),
        over: {str(key): value for key, value in values.items()},
        "unit": unit,
        "target": target,
        "met": met,
    }


def write_report(
    path: Path,
    figures: Mapping[str, Mapping[str, object]],
    how: str,
    machine: Mapping[str, object],
) -> None:
    """Write the figures and print them; ``how`` is for those that do not say it themselves."""
    path.parent.mkdir(parents=True, exist_ok=True)
    report = {
        "date": datetime.date.today().isoformat(),
        "machine": dict(machine),
        "figures": {name: {"how": how, **figure} for name, figure in figures.items()},
    }
    path.write_text(json.dumps(report, indent=2) + "\n")
    for name, figure in figures.items():
        value = figure["value"]
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        verdict = {True: "met", False: "NOT MET"}.get(figure.get("met"), "")  # type: ignore[call-overload]
        print(f"{name:60} {shown:>12} {figure['unit']!s:8} {figure['target']!s:10} {verdict}")
    print(f"written to {path}")
