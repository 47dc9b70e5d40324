"""Boxes made of namespaces by ``bwrap``: the strongest provider that needs no daemon."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from palestra.rl.errors import SandboxError
from palestra.rl.types import Sandbox
from palestra.sandbox import seccomp, workspace
from palestra.sandbox.limits import Cgroup, Limits, cgroup_guarantees
from palestra.sandbox.local import PYTHON, SEARCH_PATH, LocalBox, opened, pipe_with
from palestra.sandbox.process import Command, Ended

_SYSTEM = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_ETC = ["alternatives", "group", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime"]
_ETC += ["nsswitch.conf", "passwd", "mime.types"]
_INSIDE = "/workspace"
_ENVIRONMENT = {"PATH": SEARCH_PATH, "HOME": _INSIDE, "LANG": "C.UTF-8", "TMPDIR": "/tmp"}


# Opened for appending and never written to: a probe must not change the machine it probes.
_PROBE = "test ! -w /usr && ! ( : >> /proc/sys/kernel/hostname ) 2>/dev/null"


class Bubblewrap:
    """Opens boxes with private file system, network, process and user namespaces.

    ``root`` is the host folder that holds the work folders. Construction runs ``bwrap`` once and
    raises ``SandboxError`` where it is absent or not permitted.

    Example: ``async with Bubblewrap().open() as box: await box.exec(["python3", "-V"])``
    """

    name = "bubblewrap"

    def __init__(self, *, root: Path | None = None, limits: Limits | None = None) -> None:
        self._root = root or workspace.default_root()
        self._limits = limits or Limits()
        self._program = shutil.which("bwrap") or ""
        self._filter = seccomp.build() if seccomp.available() else b""
        self._base = [self._program, *_namespaces(), *_mounts(self._limits)]
        self._probe()
        self.guarantees = frozenset(
            {"fs", "no_net", "kill_tree", "pidns", "netns", "no_new_privs", "signals"}
            | ({"seccomp"} if self._filter else set())
            | cgroup_guarantees()
        )

    def open(self) -> AbstractAsyncContextManager[Sandbox]:
        """A fresh box; raises ``SandboxError`` when it cannot be made."""
        return opened(self._root, self._limits, self._build)

    def _build(self, folder: Path, cgroup: Cgroup) -> LocalBox:
        def wrap(argv: Sequence[str], env: Mapping[str, str], status: int) -> Command:
            return self._command(folder, argv, env, status)

        box = LocalBox(folder, wrap, cgroup=cgroup, limits=self._limits)
        # bwrap tells the end by a signal as 128 + number, like a shell.
        box.shell_signals = True
        box.started = _started
        return box

    def _command(
        self, folder: Path, argv: Sequence[str], env: Mapping[str, str], status: int
    ) -> Command:
        words = [*self._base, "--bind", str(folder), _INSIDE, "--remount-ro", "/"]
        words += ["--chdir", _INSIDE]
        words += ["--json-status-fd", str(status)]
        for key, value in {**_ENVIRONMENT, **env}.items():
            words += ["--setenv", key, value]
        filters: tuple[int, ...] = ()
        if self._filter:
            filters = (pipe_with(self._filter),)
            words += ["--seccomp", str(filters[0])]
        # The root as working folder: PWD of the outer shell can be read in /proc/1/environ.
        return Command(
            argv=[*words, "--", *argv], cwd=Path("/"), fds=(status, *filters), owned=filters
        )

    def _probe(self) -> None:
        if not self._program:
            raise SandboxError("bwrap is not installed")
        tried = subprocess.run(
            [*self._base, "--", "/bin/sh", "-c", _PROBE],
            env={},
            capture_output=True,
            timeout=10,
            check=False,
        )
        if tried.returncode != 0:
            raise SandboxError(f"bwrap: {tried.stderr.decode(errors='replace').strip()}")


def _started(ended: Ended) -> bool:
    """bwrap ends without stating an exit code when it could not build the box (or find argv[0])."""
    if ended.result.exit_code is None or b'"exit-code"' in ended.status:
        return True
    return ended.result.stderr.startswith(b"bwrap: execvp ")


def _namespaces() -> list[str]:
    return [
        "--unshare-all",
        "--unshare-user",
        "--disable-userns",
        # Takes effect when the *thread* that started bwrap ends: start boxes from a lasting one.
        "--die-with-parent",
        "--new-session",
        "--clearenv",
        "--cap-drop",
        "ALL",
        "--hostname",
        "box",
    ]


def _mounts(limits: Limits) -> list[str]:
    words = ["--ro-bind", "/usr", "/usr"]
    for path in _SYSTEM:
        if Path(path).is_symlink():
            words += ["--symlink", str(Path(path).readlink()), path]
        elif Path(path).exists():
            words += ["--ro-bind", path, path]
    for name in _ETC:
        words += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    # Run by root, bwrap leaves /proc/sys/* writable, and core_pattern is an escape: read-only.
    words += ["--proc", "/proc", "--remount-ro", "/proc", "--dev", "/dev"]
    words += ["--size", str(limits.tmp), "--tmpfs", "/tmp"]
    if not PYTHON.is_relative_to("/usr"):
        words += ["--ro-bind", str(PYTHON), str(PYTHON)]
    return words
