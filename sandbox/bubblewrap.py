"""Boxes made of namespaces by ``bwrap``: the strongest provider that needs no daemon."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

from palestra.rl.errors import SandboxError
from palestra.rl.types import ExecResult
from palestra.sandbox import local_reset, seccomp, workspace
from palestra.sandbox.base import FOLDER, Box, BoxSpec, work_folder
from palestra.sandbox.limits import Limits, cgroup_guarantees
from palestra.sandbox.local import PYTHON, SEARCH_PATH, Launch, WarmLaunch, Wrap, file_with
from palestra.sandbox.local_backend import LocalBackend
from palestra.sandbox.process import Command, Ended

_SYSTEM = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_ETC = ("group", "ld.so.cache", "ld.so.conf", "localtime", "nsswitch.conf", "passwd", "mime.types")
_ETC_FOLDERS = ("alternatives", "ld.so.conf.d")
_ENVIRONMENT = {"PATH": SEARCH_PATH, "LANG": "C.UTF-8", "TMPDIR": "/tmp"}


# Opened for appending and never written to: a probe must not change the machine it probes.
_PROBE = (
    "test ! -w /usr && ! ( : >> /proc/sys/kernel/hostname ) 2>/dev/null"
    f" && test -x {PYTHON}/bin/python3 && : > probe && : > /tmp/probe"
)
# What the words of a command bring about, or a work folder that an earlier one has shut.
_REFUSED = (b"bwrap: execvp ", b"bwrap: Can't chdir to ")
_NOBODY = 65534
_SETPRIV = "/usr/bin/setpriv"
_TIMEOUT_S = 10


class Bubblewrap(LocalBackend):
    """Boxes with private file system, network, process and, for ordinary users, user namespaces.

    Run by root, commands become the user ``nobody`` after bwrap has set the box up; where that does
    not work they are root in a user namespace that gives root no power. Construction tries it and
    raises ``SandboxError`` where bwrap is absent or not permitted.

    Example: ``async with Bubblewrap().open() as box: await box.exec(["python3", "-V"])``
    """

    name = "bubblewrap"
    places = True

    def __init__(self, *, root: Path | None = None, limits: Limits | None = None) -> None:
        super().__init__(root=root, limits=limits)
        self._program = shutil.which("bwrap") or ""
        if not self._program:
            raise SandboxError("bwrap is not installed")
        self._filter = seccomp.build() if seccomp.available() else b""
        # Only the filter keeps a box without a user namespace from making its own.
        can_switch = os.geteuid() == 0 and bool(self._filter) and Path(_SETPRIV).exists()
        self.user = _NOBODY if can_switch and not self._tried(_NOBODY) else None
        if self.user is None and (problem := self._tried(None)):
            raise SandboxError(problem)
        self.guarantees = frozenset(
            {"fs", "no_net", "kill_tree", "pidns", "netns", "no_new_privs", "signals", "tmp"}
            | ({"seccomp"} if self._filter else set())
            | ({"user"} if self.user is not None else set())
            | cgroup_guarantees()
        )

    def launch(self, folder: Path, spec: BoxSpec) -> Launch:
        """One bwrap per command: its namespaces end with it, and so does all that it started."""
        base = self._base(folder / "work", spec, self.user)
        wrap = self._wrapper(base, self.user, self._filter, home=work_folder(spec))
        return Launch(wrap=wrap, told=_told)

    def warm(self, limits: Limits) -> WarmLaunch:
        """How a zygote is started in a box of ``limits``; see ``sandbox/zygote.py``.

        Run by root it keeps the power to become ``nobody`` and to mount /proc anew; then it shuts
        itself into a user namespace. Raises ``SandboxError`` where there is no filter.
        """
        if not self._filter:
            raise SandboxError("no seccomp filter for this machine")
        words = [*_namespaces(self.user, nesting=True), *_mounts(limits, proc_writable=True)]
        words += ["--dir", FOLDER, "--remount-ro", "/", "--chdir", FOLDER]
        wrap = self._wrapper(words, None, seccomp.build(nesting=True))
        return WarmLaunch(wrap=wrap, user=self.user)

    def cannot_reset(self) -> str:
        """Why used boxes cannot be made as new here; see ``reset.Resets``."""
        lacking = ", ".join(sorted(local_reset.NEEDED - self.guarantees))
        return f"without {lacking} something of the last use may be left" if lacking else ""

    async def reset(self, box: Box) -> None:
        """Make a used box as new; raises ``SandboxError`` and ``OSError``."""
        await local_reset.reset(box, self.user)

    async def fingerprint(self, box: Box) -> str:
        """What is the same for all fresh boxes; raises ``OSError``."""
        return local_reset.fingerprint(box)

    def _wrapper(
        self, base: Sequence[str], user: int | None, filter: bytes, *, home: str = FOLDER
    ) -> Wrap:
        def wrap(argv: Sequence[str], env: Mapping[str, str], status: int) -> Command:
            with _opening() as fds:
                words = [word for path in _ETC for word in _copied(path, fds)]
                words += [*base, "--json-status-fd", str(status)]
                for key, value in {**_ENVIRONMENT, "HOME": home, **env}.items():
                    words += ["--setenv", key, value]
                if filter:
                    fds.append(file_with(filter))
                    words += ["--seccomp", str(fds[-1])]
                # Not on the command line, which is seen in the box and by others on the machine.
                fds.append(file_with(os.fsencode("\0".join(words) + "\0")))
            argv = [self._program, "--args", str(fds[-1]), "--", *_becoming(user), *argv]
            # The root as working folder: PWD of the outer shell can be read in /proc/1/environ.
            return Command(argv=argv, cwd=Path("/"), fds=(status, *fds), owned=tuple(fds))

        return wrap

    def _base(self, work: Path, spec: BoxSpec, user: int | None) -> list[str]:
        words, inside = [*_namespaces(user), *_mounts(spec.limits)], work_folder(spec)
        for path in spec.scratch:
            words += ["--perms", "1777", "--size", str(spec.limits.tmp), "--tmpfs", path]
        return [*words, "--bind", str(work), inside, "--remount-ro", "/", "--chdir", inside]

    def _tried(self, user: int | None) -> str:
        """What is wrong with boxes whose commands run as ``user``; empty if nothing is."""
        try:
            with tempfile.TemporaryDirectory(prefix="palestra-probe-") as folder:
                work = workspace.furnish(Path(folder), "work", user)
                base = self._base(work, BoxSpec(limits=self.limits), user)
                tried = subprocess.run(
                    [self._program, *base, "--", *_becoming(user), "/bin/sh", "-c", _PROBE],
                    env={},
                    capture_output=True,
                    timeout=_TIMEOUT_S,
                    check=False,
                )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"bwrap: {error}"
        text = tried.stderr.decode(errors="replace").strip()
        return f"bwrap: {text or tried.returncode}" if tried.returncode else ""


def _told(ended: Ended) -> ExecResult | None:
    """bwrap states an exit code, unless it could not build the box or start the command."""
    result, code = ended.result, ended.result.exit_code
    if code is None:
        return result
    if b'"exit-code"' not in ended.status:
        found = b"No such file" not in result.stderr
        started = result.stderr.startswith(_REFUSED)
        return replace(result, exit_code=126 if found else 127) if started else None
    # The end by a signal is told as 128 + number, like by a shell.
    return replace(result, exit_code=None, signal=code - 128) if 128 < code <= 192 else result


def _namespaces(user: int | None, *, nesting: bool = False) -> list[str]:
    """``nesting``: what is started may make user namespaces of its own."""
    words = ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]
    words += ["--unshare-cgroup-try", "--new-session", "--clearenv", "--hostname", "box"]
    # Takes effect when the *thread* that started bwrap ends: start boxes from a lasting one.
    words += ["--die-with-parent", "--cap-drop", "ALL"]
    if user is None:
        return [*words, "--unshare-user", *([] if nesting else ["--disable-userns"])]
    needed = ["SETUID", "SETGID", "SETPCAP", *(["SYS_ADMIN"] if nesting else [])]
    return words + [word for cap in needed for word in ("--cap-add", f"CAP_{cap}")]


@contextmanager
def _opening() -> Iterator[list[int]]:
    """Descriptors that are handed on, unless something fails before: then they are closed."""
    fds: list[int] = []
    try:
        yield fds
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise


def _copied(name: str, fds: list[int]) -> list[str]:
    """The words for a file of /etc, if it is there; bwrap copies one in a third of the time of a
    mount. Raises ``OSError``."""
    try:
        fds.append(os.open(f"/etc/{name}", os.O_RDONLY))
    except (FileNotFoundError, PermissionError):
        return []
    return ["--perms", "0644", "--file", str(fds[-1]), f"/etc/{name}"]


def _becoming(user: int | None) -> list[str]:
    """The words before a command that make it ``user``, for good and without any power."""
    if user is None:
        return []
    words = [_SETPRIV, f"--reuid={user}", f"--regid={user}", "--clear-groups", "--inh-caps=-all"]
    return [*words, "--bounding-set=-all", "--no-new-privs", "--"]


@cache
def _mounts(limits: Limits, *, proc_writable: bool = False) -> tuple[str, ...]:
    words = ["--ro-bind", "/usr", "/usr"]
    for path in _SYSTEM:
        if Path(path).is_symlink():
            words += ["--symlink", str(Path(path).readlink()), path]
        elif Path(path).exists():
            words += ["--ro-bind", path, path]
    for name in _ETC_FOLDERS:
        words += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    # Run by root, bwrap leaves /proc/sys/* writable, and core_pattern is an escape: read-only.
    words += ["--proc", "/proc", *([] if proc_writable else ["--remount-ro", "/proc"])]
    words += ["--dev", "/dev", "--remount-ro", "/dev"]
    for path in ("/tmp", "/dev/shm"):
        words += ["--perms", "1777", "--size", str(limits.tmp), "--tmpfs", path]
    if not PYTHON.is_relative_to("/usr"):
        # bwrap would give them the mode of the host's folders, which may shut others out.
        for parent in reversed(PYTHON.parents[:-1]):
            words += ["--perms", "0755", "--dir", str(parent)]
        words += ["--ro-bind", str(PYTHON), str(PYTHON)]
    return tuple(words)
