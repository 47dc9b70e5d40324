"""How much one box may use, and the cgroup that holds it to that where cgroups are writable."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from palestra.rl.errors import SandboxError

_MOUNT = Path("/sys/fs/cgroup")
_ATTEMPTS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bytes and counts of one box; ``files`` bounds a single file, ``tmp`` the whole of /tmp."""

    memory: int = 2 << 30
    pids: int = 128
    files: int = 256 << 20
    tmp: int = 256 << 20


class Cgroup:
    """The control groups of one box: v1 or v2, memory and process count, whichever is writable.

    Groups of that name that exist already are joined and keep their limits. Raises ``OSError``.
    """

    def __init__(self, name: str, limits: Limits) -> None:
        self._groups = [(parent / name, files) for parent, files in _parents().items()]
        values = {
            "memory.limit_in_bytes": limits.memory,
            "memory.max": limits.memory,
            "memory.swap.max": 0,
            "pids.max": limits.pids,
        }
        for folder, files in self._groups:
            with suppress(FileExistsError):
                folder.mkdir()
                for key in values.keys() & files:
                    (folder / key).write_text(str(values[key]))

    @property
    def entries(self) -> list[str]:
        """Files into which a process of one thread writes 0 to join."""
        # Version 1 can move a single thread, which waits for nobody; to move a process the kernel
        # halts every fork and exit of the machine first, for 5 ms or more.
        names = ("tasks" if "tasks" in files else "cgroup.procs" for _, files in self._groups)
        return [str(folder / name) for (folder, _), name in zip(self._groups, names, strict=True)]

    @property
    def members(self) -> list[int]:
        """Numbers of the processes that are in them."""
        procs = [folder / "cgroup.procs" for folder, _ in self._groups]
        return [int(pid) for file in procs for pid in file.read_text().split()]

    @property
    def used(self) -> int:
        """Bytes of memory that count for the box; 0 where memory is not counted."""
        counters = {"memory.usage_in_bytes", "memory.current"}
        found = [folder / name for folder, files in self._groups for name in counters & files]
        return sum(int(file.read_text()) for file in found)

    @property
    def oom_kills(self) -> int:
        """Processes that were killed because the box had used up its memory."""
        # memory.events is version 2, memory.oom_control version 1; both have a line "oom_kill N".
        counters = {"memory.events", "memory.oom_control"}
        found = [folder / name for folder, files in self._groups for name in counters & files]
        return sum(_counted(file) for file in found)


def groups_gone(name: str) -> bool:
    """Delete the groups of a box if nothing is left in them; whether there are none any more."""
    try:
        for folder in _groups(name):
            with suppress(FileNotFoundError):
                folder.rmdir()
    except OSError:
        return False
    return True


def remove_groups(name: str) -> None:
    """End what is left in the groups of a box and delete them; raises ``SandboxError``."""
    for folder in _groups(name):
        for attempt in range(_ATTEMPTS):
            if _removed(folder):
                break
            time.sleep(0.001 * (1 + attempt))
        else:
            raise SandboxError(f"processes of {name} do not die")


@cache
def cgroup_guarantees() -> frozenset[str]:
    """Which of ``memory`` and ``pids`` a cgroup can hold on this machine."""
    found = {name for parent in _parents() for name in _controllers(parent)}
    return frozenset(found & {"memory", "pids"})


def _groups(name: str) -> list[Path]:
    return [parent / name for parent in _parents()]


def _counted(file: Path) -> int:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def _removed(folder: Path) -> bool:
    """Kill the members of a group and try to delete it; dying members keep it busy for a moment."""
    with suppress(OSError):
        folder.rmdir()
        return True
    with suppress(OSError):
        (folder / "cgroup.kill").write_text("1")
    with suppress(OSError):
        for line in (folder / "cgroup.procs").read_text().split():
            # 0 stands for a process that this one cannot name; to signal it would be our own end.
            if int(line) > 0:
                os.kill(int(line), signal.SIGKILL)
    return not folder.exists()


def _controllers(parent: Path) -> set[str]:
    unified = parent / "cgroup.subtree_control"
    if unified.exists():
        return set(unified.read_text().split())
    return {name for name in ("memory", "pids") if parent.is_relative_to(_MOUNT / name)}


@cache
def _parents() -> Mapping[Path, frozenset[str]]:
    """Where groups can be made, below the group that we run in or else below the root, and the
    files that such a group has."""
    found: dict[Path, frozenset[str]] = {}
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        _, controllers, path = line.split(":", 2)
        for mount in _mounts(controllers):
            for spot in (mount / path.lstrip("/"), mount):
                if files := _tried(spot):
                    found[spot] = files
                    break
    return found


def _mounts(controllers: str) -> list[Path]:
    if controllers == "":
        return [_MOUNT]
    return [_MOUNT / name for name in controllers.split(",") if name in ("memory", "pids")]


def _tried(parent: Path) -> frozenset[str]:
    """The files of a group below ``parent``; none where it cannot hold a box to a limit.

    It is tried: containers often show a writable mode on a read-only mount.
    """
    probe = parent / f"palestra-probe-{os.getpid()}"
    try:
        with suppress(FileExistsError):
            probe.mkdir()
        files = frozenset(entry.name for entry in probe.iterdir())
        probe.rmdir()
    except OSError:
        return frozenset()
    return files if files & {"memory.limit_in_bytes", "pids.max"} else frozenset()
