"""Processes of a box, made, seen and ended from inside; needs /proc and, to end them, CAP_KILL."""

from __future__ import annotations

import ctypes
import os
import resource
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypedDict

    class Config(TypedDict):
        """What the driver decides once per connection. ``user`` is (uid, gid) of commands."""

        user: tuple[int, int]
        folder: str
        env: dict[str, str]
        rlimits: dict[str, int]
        filter: bytes
        ttl: float
        orphan_s: float
        report: tuple[str, int]


LIBC = ctypes.CDLL(None, use_errno=True)

_DUMPABLE, _SECCOMP, _NO_NEW_PRIVS = 4, 22, 38
_OOM_FILES = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")


def check(value: int, what: str) -> None:
    """Raise for a failed call of libc."""
    if value < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def hide() -> None:
    """Where nobody is root, the supervisor and the commands are one user: close our memory and
    descriptors to the others, in all that we fork too, until it turns into another program."""
    if os.getuid() != 0:
        check(LIBC.prctl(_DUMPABLE, 0, 0, 0, 0), "dumpable")
        for number in (signal.SIGALRM, signal.SIGINT, signal.SIGTERM):
            # The first process of a container gets no signal from inside that it does not handle.
            signal.signal(number, signal.SIG_DFL)


def expose(pid: int) -> None:
    """Let a process be the first to go without memory."""
    try:
        with open(f"/proc/{pid}/oom_score_adj", "w") as file:  # noqa: PTH123
            file.write("1000")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        # It is gone, or still hidden (``hide``) and exposed once it is another program.
        pass


def write(fd: int, data: bytes) -> None:
    """Write all of ``data``."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def become(config: Config) -> None:
    """Turn into the workload: its user and limits, and the first to go without memory.

    Within the share of the processor that the container has, it gets what the supervisor leaves:
    a fork bomb would otherwise starve the one that is to end it.
    """
    expose(os.getpid())
    os.nice(19)
    for name, value in config["rlimits"].items():
        resource.setrlimit(getattr(resource, name), (value, value))
    uid, gid = config["user"]
    if os.getuid() != uid:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    os.umask(0o022)
    check(LIBC.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    if config["filter"]:
        confine(config["filter"])


def confine(code: bytes) -> None:
    """Install a seccomp filter, on top of the one that the container has."""

    class Program(ctypes.Structure):
        _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_char_p)]

    given = Program(len(code) // 8, code)
    check(LIBC.prctl(_SECCOMP, 2, ctypes.byref(given), 0, 0), "seccomp")


def children() -> list[int]:
    """Numbers of the direct children of this process, adopted ones included."""
    me = str(os.getpid())
    try:
        with open(f"/proc/{me}/task/{me}/children") as file:  # noqa: PTH123
            return [int(word) for word in file.read().split()]
    except OSError:
        return [pid for pid, facts in processes() if facts.get("PPid") == me]


def kill(pids: list[int]) -> None:
    """SIGKILL for each of them."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def kill_user(uid: int) -> None:
    """SIGKILL for all processes of the workload at one moment: none can fork and get away.

    Where it is our own user, that is everybody but us and the first process of the box.
    """
    root = os.getuid() == 0
    if root:
        # As that user, so that -1 means its processes and not the supervisor's.
        os.setresuid(uid, uid, 0)
    try:
        os.kill(-1, signal.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        if root:
            os.setresuid(0, 0, 0)


def survivors(uid: int) -> list[int]:
    """Processes of the workload that are not dead yet; not we, nor the first process."""
    return [
        pid
        for pid, facts in processes()
        if pid not in (1, os.getpid())
        and facts.get("Uid", "").split()[:1] == [str(uid)]
        and facts.get("State", "Z")[0] not in "ZX"
    ]


def processes() -> list[tuple[int, dict[str, str]]]:
    """What /proc tells of every process in the box."""
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208
        try:
            with open(f"/proc/{name}/status") as file:  # noqa: PTH123
                lines = [line.split(":", 1) for line in file if ":" in line]
        except OSError:
            continue
        if name.isdigit():
            found.append((int(name), {key: value.strip() for key, value in lines}))
    return found


def oom_kills() -> int:
    """Processes of this box that were killed because its memory was used up, so far."""
    count = 0
    for path in _OOM_FILES:
        try:
            with open(path) as file:  # noqa: PTH123
                found = [line.split() for line in file if line.startswith("oom_kill ")]
        except OSError:
            continue
        count += sum(int(words[1]) for words in found)
    return count
