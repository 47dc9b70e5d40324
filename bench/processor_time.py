"""Processor time of parts of a benchmark, with all that they start, by control groups.

On a machine that others use, too, it says more than the clock. Needs cgroup v1's ``cpuacct`` and
the right to make groups.
"""

from __future__ import annotations

import os
from pathlib import Path

_TOP = Path("/sys/fs/cgroup/cpuacct")


class ProcessorTime:
    """Counts for each name what was started while it was entered, for as long as that runs.

    Example: ``before = meter.enter("warm"); work(); print(meter.enter("warm") - before)``
    """

    def __enter__(self) -> ProcessorTime:
        self._names: set[str] = set()
        return self

    def enter(self, name: str) -> float:
        """From now on count under this name; seconds so far."""
        folder = self._folder(name)
        folder.mkdir(exist_ok=True)
        self._names.add(name)
        (folder / "cgroup.procs").write_text("0")
        return int((folder / "cpuacct.usage").read_text()) / 1e9

    def __exit__(self, *_: object) -> None:
        (_TOP / "cgroup.procs").write_text("0")
        for name in self._names:
            folder = self._folder(name)
            for process in (folder / "cgroup.procs").read_text().split():
                (_TOP / "cgroup.procs").write_text(process)
            folder.rmdir()

    def _folder(self, name: str) -> Path:
        return _TOP / f"palestra-bench-{os.getpid()}-{name.replace(' ', '-')}"
