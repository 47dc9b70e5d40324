"""The process and the folder of a candidate: what it may hold, how it is laid out and ended.

Runs inside the box: standard library only.
"""

from __future__ import annotations

import os
import resource
import sys

from palestra.sandbox.answers import write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn


def leave(work: Callable[[], None]) -> NoReturn:
    """Do ``work`` as a forked child and end without running anything of the parent's."""
    try:
        work()
    finally:
        os._exit(70)


def end(pid: int) -> None:
    """Kill a child and its process group, and reap it."""
    for kill in (os.killpg, os.kill):
        try:
            kill(pid, 9)
        except OSError:
            continue
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        return


def alone(fd: int) -> int:
    """Make ``fd`` the only descriptor above 2, as number 3: a driver with many open files hands
    down larger numbers than ``keep_only`` looks at."""
    os.dup2(fd, 3)
    # A limit that was lowered since may be below it.
    os.closerange(4, max(os.sysconf("SC_OPEN_MAX"), fd + 1))
    return 3


def keep_only(fds: list[int]) -> None:
    """Close every descriptor between 2 and 4096 but these."""
    low = 3
    for fd in [*sorted(fds), 4096]:
        os.closerange(low, fd)
        low = fd + 1


def limit(memory: int) -> None:
    """Bound address space (bytes), file size and core dumps for good."""
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 20, 64 << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def import_sites() -> None:
    """Add the packages that are installed in the box, which suites may need."""
    import site

    # The step of site.main that knows virtual environments; others would run what lies in the box.
    site.addsitepackages(site.venv(set(sys.path)) or set())


def lay_out(folder: str, files: dict[str, tuple[bytes, int]]) -> None:
    """Write files with their modes into a folder that has nothing else then."""
    try:
        os.mkdir(folder)  # noqa: PTH102
    except FileExistsError:
        empty(folder)
    for path, (data, mode) in files.items():
        full = f"{folder}/{path}"
        if "/" in path:
            os.makedirs(os.path.dirname(full), exist_ok=True)  # noqa: PTH103, PTH120
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        fd = os.open(full, flags, mode)
        write(fd, data)
        os.close(fd)


def empty(folder: str) -> None:
    """Remove what an earlier start of the same job left."""
    import shutil

    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)  # noqa: PTH108


def load(name: str) -> object:
    """The module ``name``, imported."""
    __import__(name)
    return sys.modules[name]
