"""Boxes without namespaces: Landlock for files, seccomp for the network, a subreaper for the rest.

For machines where user namespaces are forbidden (most containers). Inside such a box ``socket()``
is refused, /proc is hidden, and chmod, chown and utime succeed without doing anything.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

from palestra.rl.errors import SandboxError
from palestra.rl.types import ExecResult
from palestra.sandbox import seccomp, workspace
from palestra.sandbox.base import BoxSpec
from palestra.sandbox.limits import Limits, cgroup_guarantees
from palestra.sandbox.local import PYTHON, SEARCH_PATH, Launch, file_with
from palestra.sandbox.local_backend import LocalBackend
from palestra.sandbox.process import Command, Ended

_READ_ONLY = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/alternatives"]
_READ_ONLY += ["/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime"]
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_CREATE_RULESET = 444


class Landlock(LocalBackend):
    """Boxes confined by Landlock and seccomp; raises ``SandboxError`` where either is absent.

    Signals to outside processes are blocked from Landlock ABI 6 (Linux 6.12); on older kernels a
    box could kill its own supervisor, so ``kill_tree`` is not among the guarantees there, and
    before ABI 3 (Linux 6.2) files outside could be cut off by ``truncate``, so ``fs`` is not.

    Example: ``async with Landlock().open() as box: await box.exec(["python3", "-V"])``
    """

    name = "landlock"

    def __init__(self, *, root: Path | None = None, limits: Limits | None = None) -> None:
        super().__init__(root=root, limits=limits)
        version = _abi()
        if version < 1 or not seccomp.available():
            raise SandboxError("Landlock or seccomp is not available")
        self._filter = seccomp.build(bare=True).hex()
        self._launcher = (files("palestra.sandbox") / "landlock_launcher.py").read_text()
        self.guarantees = frozenset(
            {"no_net", "no_new_privs", "seccomp"}
            | ({"fs"} if version >= 3 else set())
            | ({"kill_tree", "signals"} if version >= 6 else set())
            | cgroup_guarantees()
        )

    def launch(self, folder: Path, spec: BoxSpec) -> Launch:
        """A Python supervisor per command, which confines a child and outlives its tree."""
        work, tmp = str(folder / "work"), str(workspace.furnish(folder, "tmp"))
        base = {"PATH": SEARCH_PATH, "HOME": work, "LANG": "C.UTF-8", "TMPDIR": tmp}
        # git ends at settings that it may not read, where it would do without absent ones.
        base["GIT_CONFIG_NOSYSTEM"] = "1"

        def wrap(argv: Sequence[str], env: Mapping[str, str], status: int) -> Command:
            config = {
                "status": status,
                "folder": work,
                "filter": self._filter,
                "read_only": [*_READ_ONLY, str(PYTHON)],
                "read_write": [work, tmp, *_DEVICES],
                "env": {**base, **env},
                "driver": os.getpid(),
            }
            # Not on the command line: it holds less, and other users of the machine see it.
            settings = file_with(json.dumps(config).encode())
            start = [str(PYTHON / "bin" / "python3"), "-I", "-S", "-c", self._launcher]
            return Command(
                argv=[*start, str(settings), *argv],
                cwd=folder,
                fds=(status, settings),
                owned=(settings,),
            )

        return Launch(wrap=wrap, stop=_terminate, told=_told)


def _told(ended: Ended) -> ExecResult | None:
    """The supervisor writes a status when a command is confined and about to start."""
    return ended.result if ended.status or ended.result.timed_out else None


def _terminate(pid: int) -> None:
    """Ask the supervisor to end everything below it."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)


def _abi() -> int:
    """Version of Landlock here; negative if the kernel has none or does not allow it."""
    call = ctypes.CDLL(None, use_errno=True).syscall
    return int(call(_CREATE_RULESET, None, ctypes.c_size_t(0), 1))
