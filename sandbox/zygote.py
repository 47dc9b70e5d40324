"""The inside of a warm box: an interpreter that forks a confined worker for every grade.

Sent as text, standard library only. It never reads a request: the forked child does, after it has
left every shared place behind. What the child gets of its own: process, mount and IPC namespaces,
empty /workspace, /tmp, /dev/shm, /dev/pts and /proc, and no capability. There is one child at a
time, and the next is forked only when every process of the last is dead.

The seccomp filter is set by bwrap (a filter per child would cost a third of a millisecond), so it
must let pass unshare, setns and mount. Children cannot use them: they have no capability, and none
can make the user namespace in which it would have one.

Conversation on standard input, a socket: we say READY; the host sends the milliseconds that a grade
may take (4 bytes), then what ``worker.main`` reads; we answer one byte when nothing is left of it.
"""

from __future__ import annotations

import ctypes
import gc
import marshal
import os
import resource
import select
import sys

from palestra.sandbox.candidate import alone
from palestra.sandbox.rehearsal import rehearse
from palestra.sandbox.worker import main as work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn, TypedDict

    class Config(TypedDict):
        """``user`` to become, or None; bytes of ``tmp``, count of ``pids``; the descriptor
        ``report``; modules to ``preload``; ``trial``: end after the first word."""

        user: int | None
        tmp: int
        pids: int
        report: int
        preload: list[str]
        trial: bool


READY, ENDED, LATE, WORN = b"+", b".", b"t", b"w"
"""``LATE``: the time was over and the child was killed. ``WORN``: it left traces that the next one
might see, so this box must not be used again."""

_NEW_NS, _NEW_IPC, _NEW_USER, _NEW_PID = 0x20000, 0x8000000, 0x10000000, 0x20000000
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REC, _PRIVATE = 1, 2, 4, 8, 0x4000, 0x40000
_SET_DUMPABLE, _DROP_BOUNDING, _CAPABILITY_3 = 4, 24, 0x20080522
_CONTROL = 0
_SETUP_FAILED = 71

_libc = ctypes.CDLL(None, use_errno=True)


def main(config: Config) -> None:
    """Serve grades until the host is gone."""
    for name in config["preload"]:
        __import__(name)
    rehearse()
    _enter(config["user"])
    inner = os.fork()
    if inner:
        # The host learns of our end by the end of the socket: nobody else may hold it.
        os.close(_CONTROL)
        os.waitpid(inner, 0)
        os._exit(0)
    _mount("none", "/", "", _REC | _PRIVATE)
    _mount("proc", "/proc", "proc", _NOSUID | _NODEV | _NOEXEC)
    Zygote(config).serve()
    os._exit(0)


class Zygote:
    """Forks and ends one worker after another."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY)
        self._network = _traffic()
        self._capset = (ctypes.c_uint32 * 2)(_CAPABILITY_3, 0)
        self._nothing = (ctypes.c_uint32 * 6)()
        # Objects that the collector does not touch stay shared with every child.
        gc.collect()
        gc.freeze()

    def serve(self) -> None:
        """Answer requests until the host is gone."""
        self._try()
        os.write(_CONTROL, READY)
        while not self._config["trial"] and (header := os.read(_CONTROL, 4)):
            while len(header) < 4:
                header += os.read(_CONTROL, 4 - len(header)) or sys.exit(0)
            os.write(_CONTROL, self._grade(int.from_bytes(header, "big") / 1000))

    def _try(self) -> None:
        """Prove that confinement works before the first candidate comes."""
        child = self._fork()
        if child == 0:
            self._work(1.0, trial=True)
        if os.waitpid(child, 0)[1] != 0:
            sys.exit("a child cannot be confined")

    def _grade(self, seconds: float) -> bytes:
        child = self._fork()
        if child == 0:
            self._work(seconds)
        watch = os.pidfd_open(child)
        poll = select.poll()
        poll.register(watch, select.POLLIN)
        # Only its end: what can be read there is for the child.
        poll.register(_CONTROL, 0)
        late = not poll.poll(seconds * 1000)
        os.kill(child, 9)
        # The first process of a namespace can be waited for only when all others are dead.
        os.waitpid(child, 0)
        os.close(watch)
        if _traffic() != self._network:
            return WORN
        return LATE if late else ENDED

    def _fork(self) -> int:
        """A child that is the first process of a new process namespace."""
        # Back to our own namespace first: unshare refuses while the last child's is set.
        _check(_libc.setns(self._pid_namespace, _NEW_PID), "setns")
        _check(_libc.unshare(_NEW_PID), "unshare processes")
        return os.fork()

    def _work(self, seconds: float, *, trial: bool = False) -> NoReturn:
        try:
            self._confine(seconds)
            if not trial:
                self._run()
            os._exit(0)
        except BaseException as error:  # noqa: BLE001 - the host reads why
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(_SETUP_FAILED)

    def _confine(self, seconds: float) -> None:
        alone(self._config["report"])
        score = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(score, b"1000")
        os.close(score)
        _check(_libc.unshare(_NEW_NS | _NEW_IPC), "unshare")
        own = f"size={self._config['tmp']},mode="
        for path, mode in (("/workspace", "755"), ("/tmp", "1777"), ("/dev/shm", "1777")):
            _mount("tmpfs", path, "tmpfs", _NOSUID | _NODEV, own + mode)
        _mount("devpts", "/dev/pts", "devpts", _NOSUID | _NOEXEC, "newinstance,ptmxmode=666")
        _mount("proc", "/proc", "proc", _RDONLY | _NOSUID | _NODEV | _NOEXEC)
        os.chdir("/workspace")
        pids = self._config["pids"]
        resource.setrlimit(resource.RLIMIT_NPROC, (pids, pids))
        cpu = int(seconds) + 2
        resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu))
        _check(_libc.capset(self._capset, self._nothing), "capset")

    def _run(self) -> None:
        os.environ["PALESTRA_REPORT_FD"] = "3"
        work(marshal.loads(_take(int.from_bytes(_take(4), "big"))))


def _enter(user: int | None) -> None:
    """Become ``user``, and have power over new namespaces of ours only, for good."""
    if user is not None:
        # bwrap covers parts of the one that it mounts for root, and then no other may be mounted.
        _mount("proc", "/proc", "proc", _NOSUID | _NODEV | _NOEXEC)
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    uid, gid = os.getuid(), os.getgid()
    _check(_libc.unshare(_NEW_USER | _NEW_NS | _NEW_PID), "unshare users")
    # Becoming another user hides our /proc from ourselves, but the maps are written there.
    _check(_libc.prctl(_SET_DUMPABLE, 1, 0, 0, 0), "prctl")
    for name, text in (
        ("self/setgroups", "deny"),
        ("self/uid_map", f"{uid} {uid} 1"),
        ("self/gid_map", f"{gid} {gid} 1"),
        ("sys/user/max_user_namespaces", "0"),
    ):
        with open(f"/proc/{name}", "w") as file:  # noqa: PTH123
            file.write(text)
    capability = 0
    while _libc.prctl(_DROP_BOUNDING, capability, 0, 0, 0) == 0:
        capability += 1


def _traffic() -> bytes:
    """Counters of the network, which every child shares: they move when one of them uses it."""
    counters = os.open("/proc/self/net/dev", os.O_RDONLY)
    try:
        return os.read(counters, 1 << 16)
    finally:
        os.close(counters)


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    words = (text.encode() for text in (source, target, kind))
    _check(_libc.mount(*words, flags, options.encode()), f"mount {kind} {target}")


def _check(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _take(size: int) -> bytes:
    chunks: list[bytes] = []
    while size:
        data = os.read(0, size)
        if not data:
            raise EOFError("the host is gone")
        chunks.append(data)
        size -= len(data)
    return b"".join(chunks)
