"""How much one box may use, and the cgroup that holds it to that where cgroups are writable."""

from __future__ import annotations

import os
import signal
import time
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
        self._folders = _groups(name)
        values = {
            "memory.limit_in_bytes": limits.memory,
            "memory.max": limits.memory,
            "memory.swap.max": 0,
            "pids.max": limits.pids,
        }
        for folder in self._folders:
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            for key, value in values.items():
                if (folder / key).exists():
                    (folder / key).write_text(str(value))

    @property
    def entries(self) -> list[str]:
        """Files into which a process writes 0 to join."""
        return [str(_entry(folder)) for folder in self._folders]

    @property
    def oom_kills(self) -> int:
        """Processes that were killed because the box had used up its memory."""
        # memory.events is version 2, memory.oom_control version 1; both have a line "oom_kill N".
        names = ("memory.events", "memory.oom_control")
        return sum(_counted(folder / name) for folder in self._folders for name in names)


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


def _entry(folder: Path) -> Path:
    # Version 1 can move a single thread, which waits for nobody; to move a process the kernel
    # halts every fork and exit of the machine first, for 5 ms or more. Shells have one thread.
    thread = folder / "tasks"
    return thread if thread.exists() else folder / "cgroup.procs"


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
def _parents() -> tuple[Path, ...]:
    """Where groups can be made: below the group that we run in, else below the root."""
    found: list[Path] = []
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return ()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        for mount in _mounts(controllers):
            spots = [spot for spot in (mount / path.lstrip("/"), mount) if _usable(spot)]
            found += spots[:1]
    return tuple(found)


def _mounts(controllers: str) -> list[Path]:
    if controllers == "":
        return [_MOUNT]
    return [_MOUNT / name for name in controllers.split(",") if name in ("memory", "pids")]


def _usable(folder: Path) -> bool:
    """Try it: containers often show a writable mode on a read-only mount."""
    probe = folder / "palestra-0-probe"
    try:
        with suppress(FileExistsError):
            probe.mkdir()
        usable = any((probe / name).exists() for name in ("memory.limit_in_bytes", "pids.max"))
        probe.rmdir()
    except OSError:
        return False
    return usable
