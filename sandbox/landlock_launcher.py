"""Runs as ``python3 -I -S -c <this text> FD ARGV...``: confines a child, outlives its tree.

The descriptor holds the settings as JSON. This process stays outside the confinement as the
subreaper of everything the command starts, so whatever double-forks or changes session still ends
with it. SIGTERM means: end them all.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal as signals
import sys

_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 22, 36, 38
_PR_CAPBSET_DROP = 24
_ORPHANED = 75
_CREATE, _ADD, _RESTRICT = 444, 445, 446
_FILE_RIGHTS = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15
_READ_RIGHTS = 1 << 0 | 1 << 2 | 1 << 3
_RIGHTS_BY_ABI = {1: 13, 2: 14, 3: 15, 4: 15}

libc = ctypes.CDLL(None, use_errno=True)


def check(value: int, what: str) -> int:
    """Raise for a failed call of libc."""
    if value < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
    return value


def abi() -> int:
    """The version of Landlock that the kernel offers; raises ``OSError`` if none."""
    return check(libc.syscall(_CREATE, None, ctypes.c_size_t(0), 1), "landlock")


def restrict(read_only: list[str], read_write: list[str]) -> None:
    """Confine this process: files, TCP (ABI 4), signals and abstract sockets (ABI 6)."""
    version = abi()
    handled = (1 << _RIGHTS_BY_ABI.get(version, 16)) - 1
    words = [handled, 3 if version >= 4 else 0, 3 if version >= 6 else 0]
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    attributes = (ctypes.c_uint64 * 3)(*words)
    ruleset = check(libc.syscall(_CREATE, attributes, ctypes.c_size_t(size), 0), "ruleset")
    for path in read_only:
        allow(ruleset, path, handled & _READ_RIGHTS)
    for path in read_write:
        allow(ruleset, path, handled)
    check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    check(libc.syscall(_RESTRICT, ruleset, 0), "restrict")
    os.close(ruleset)


def allow(ruleset: int, path: str, rights: int) -> None:
    """Grant ``rights`` below ``path``, if it exists."""
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    if not os.path.isdir(path):  # noqa: PTH112
        rights &= _FILE_RIGHTS
    rule = rights.to_bytes(8, sys.byteorder) + fd.to_bytes(4, sys.byteorder)
    check(libc.syscall(_ADD, ruleset, 1, rule, 0), "rule")
    os.close(fd)


def filter_calls(program: bytes) -> None:
    """Install a seccomp filter."""

    class Program(ctypes.Structure):
        _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_char_p)]

    given = Program(len(program) // 8, program)
    check(libc.prctl(_PR_SET_SECCOMP, 2, ctypes.byref(given), 0, 0), "seccomp")


def drop_capabilities() -> None:
    """Empty all capability sets; without this, root keeps CAP_KILL, CAP_CHOWN and the rest."""
    for number in range(64):
        libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    check(libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")


def become(config: dict[str, object], argv: list[str]) -> None:
    """In the child: confine, say so on the status descriptor, and turn into the command."""
    status = int(str(config["status"]))
    os.setsid()
    os.chdir(str(config["folder"]))
    program = bytes.fromhex(str(config["filter"]))
    restrict(list(config["read_only"]), list(config["read_write"]))  # type: ignore[call-overload]
    drop_capabilities()
    filter_calls(program)
    os.write(status, b"confined")
    os.set_inheritable(status, False)
    env: dict[str, str] = config["env"]  # type: ignore[assignment]
    try:
        os.execvpe(argv[0], argv, env)
    except OSError as error:
        os.write(2, f"{argv[0]}: {error.strerror}\n".encode())
        os._exit(127 if error.errno == errno.ENOENT else 126)


def children() -> list[int]:
    """Direct children of this process, adopted ones included."""
    me = str(os.getpid())
    try:
        with open(f"/proc/{me}/task/{me}/children") as file:  # noqa: PTH123
            return [int(word) for word in file.read().split()]
    except OSError:
        numbers = [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208
        return [pid for pid in numbers if parent(pid)]


def parent(pid: int) -> bool:
    """Whether ``pid`` is a child of ours, for kernels without ``children`` files."""
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return int(file.read().rpartition(")")[2].split()[1]) == os.getpid()
    except (OSError, ValueError):
        return False


def sweep() -> None:
    """Kill and reap until nothing is left; orphans become our children, so this finds them all."""
    while True:
        for pid in children():
            try:
                os.kill(pid, signals.SIGKILL)
            except ProcessLookupError:
                continue
        try:
            os.waitpid(-1, 0)
            # All that are dead, or a bomb that leaves thousands would be listed as often.
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return


def main() -> None:
    """Supervise one command and end the way it ended."""
    import json

    source, argv = int(sys.argv[1]), sys.argv[2:]
    with open(source) as file:
        config = json.load(file)
    check(libc.prctl(_PR_SET_SUBREAPER, 1, 0, 0, 0), "subreaper")
    check(libc.prctl(_PR_SET_PDEATHSIG, signals.SIGTERM, 0, 0, 0), "pdeathsig")
    if os.getppid() != config["driver"]:  # it ended before its end would have been told
        os._exit(_ORPHANED)
    # Until the handler is there, SIGTERM would end us and leave the child to itself.
    signals.pthread_sigmask(signals.SIG_BLOCK, {signals.SIGTERM})
    child = os.fork()
    if child == 0:
        try:
            signals.pthread_sigmask(signals.SIG_UNBLOCK, {signals.SIGTERM})
            become(config, argv)
        finally:
            os._exit(126)
    signals.signal(signals.SIGTERM, lambda *_: os.kill(child, signals.SIGKILL))
    signals.pthread_sigmask(signals.SIG_UNBLOCK, {signals.SIGTERM})
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    # Once it has been waited for, its number may be another's.
    signals.signal(signals.SIGTERM, signals.SIG_IGN)
    _, ended = os.waitpid(child, 0)
    sweep()
    if os.WIFSIGNALED(ended):
        signals.signal(signals.SIGTERM, signals.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(ended))
    os._exit(os.WEXITSTATUS(ended))


if __name__ == "__main__":
    main()
