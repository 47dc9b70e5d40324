"""What the backends of this machine share: a box is a folder, a cgroup and a wrapped command."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from palestra.rl.errors import BoxDied, SandboxError
from palestra.rl.types import ExecResult, File
from palestra.sandbox import workspace
from palestra.sandbox.base import BoxSpec, as_words, completed, refused
from palestra.sandbox.files import read_below, read_tree, write_below
from palestra.sandbox.keeper import destroy, destroyed_at_once
from palestra.sandbox.limits import Cgroup, Limits, cgroup_guarantees
from palestra.sandbox.process import (
    REPORT_VARIABLE,
    Command,
    Ended,
    Running,
    end_all,
    kill_group,
    run_process,
)

PYTHON = Path(sys.base_prefix)
SEARCH_PATH = f"{PYTHON}/bin:/usr/local/bin:/usr/bin:/bin"

# A busy kernel counts processes of a PID namespace for seconds after they have ended.
_ROOM_S, _TURN_S = 5.0, 0.05
_NO_ROOM = os.strerror(errno.EAGAIN).encode()

# Of files that are written at once, while nothing else is done.
_FEW, _SMALL = 20, 1 << 20

# Limits that a process hands on to its children; 0 written to a cgroup file moves the writer.
_PROLOGUE = (
    '{limits}; while [ "$1" != -- ]; do echo 0 > "$1" || exit 125; shift; done; shift; exec "$@"'
)

Wrap: TypeAlias = Callable[[Sequence[str], Mapping[str, str], int], Command]
"""``(argv, environment, status_fd)`` to the command that runs it inside the box."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How a backend runs commands in one box; all that differs between local backends.

    ``stop`` asks the process of that number to end all that it started. ``told`` gives what became
    of the command; None when only its wrapper ran.
    """

    wrap: Wrap
    stop: Callable[[int], None] = kill_group
    told: Callable[[Ended], ExecResult | None] = lambda ended: ended.result


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmLaunch:
    """How a backend starts a zygote (``sandbox/zygote.py``); ``user`` is whom it has to become."""

    wrap: Wrap
    user: int | None


class LocalBox:
    """A box of this machine; see ``base.Box``. ``folder`` is its work folder on the host and
    ``cgroup`` what bounds it."""

    def __init__(
        self, root: Path, name: str, record: workspace.Record, spec: BoxSpec, launch: Launch
    ) -> None:
        self.name = name
        self.folder = root / name / "work"
        self._root = root
        self._spec = spec
        self._launch = launch
        self.cgroup = Cgroup(name, spec.limits)
        self._running: Running = {}
        self._record = record
        self._frozen = False

    async def exec(
        self,
        argv: Sequence[str] | str,
        *,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        timeout: float = 10.0,
        max_output: int = 65_536,
        report: bool = False,
    ) -> ExecResult:
        """Run a command in the work folder; see ``Sandbox.exec``. Raises ``BoxDied`` when the box
        is gone, frozen or past its time to live, ``SandboxError`` when it cannot be started."""
        words, given = as_words(argv), {**self._spec.env, **(env or {})}
        if unfit := refused(words, given):
            return unfit
        self._check()

        def make(report_fd: int, status_fd: int) -> Command:
            extra = {REPORT_VARIABLE: str(report_fd)} if report else {}
            command = self._launch.wrap(words, {**given, **extra}, status_fd)
            fds = (*command.fds, *((report_fd,) if report else ()))
            return replace(command, fds=fds, argv=[*self._prologue(), *command.argv])

        patience = time.monotonic() + _ROOM_S
        while True:
            oom_kills = self.cgroup.oom_kills
            ended = await run_process(
                make,
                stdin=stdin,
                timeout=min(timeout, self._record.expires - time.time()),
                max_output=max_output,
                stop=self._launch.stop,
                running=self._running,
            )
            if time.monotonic() > patience or not self._crowded(ended):
                return self._judged(ended, oom=self.cgroup.oom_kills > oom_kills)
            await asyncio.sleep(_TURN_S)

    def start(self, command: Command, stdin: int, stderr: int) -> subprocess.Popen[bytes]:
        """Start a process within the limits of the box, which the caller ends; or ``OSError``."""
        try:
            return subprocess.Popen(
                [*self._prologue(), *command.argv],
                stdin=stdin,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                cwd=command.cwd,
                env=dict(command.env),
                pass_fds=command.fds,
                start_new_session=True,
            )
        finally:
            for fd in command.owned:
                os.close(fd)

    async def read(self, path: str, *, max_bytes: int = 1 << 20) -> bytes:
        """Read a regular file below the work folder; raises ``PathRefused``."""
        self._check_exists()
        return read_below(self.folder, path, max_bytes)

    async def write(self, path: str, data: bytes) -> None:
        """Write a file below the work folder; raises ``PathRefused``."""
        await self.put({path: data})

    async def put(
        self, files: Mapping[str, bytes], *, executable: Collection[str] = frozenset()
    ) -> None:
        """Write many files below the work folder; raises ``PathRefused``."""
        self._check_exists()
        if len(files) <= _FEW and sum(map(len, files.values())) <= _SMALL:
            self._write(files, executable)
        else:  # not in the event loop, which every other box waits for; to its end, or it is torn
            await completed(asyncio.to_thread(self._write, files, executable))

    async def tree(
        self,
        path: str = ".",
        *,
        skip: Collection[str] = (),
        max_files: int = 10_000,
        max_bytes: int = 64 << 20,
    ) -> dict[str, File]:
        """The regular files below ``path``; see ``Sandbox.tree``. Raises ``PathRefused``."""
        self._check_exists()
        found = await asyncio.to_thread(
            read_tree, self.folder, path, skip=skip, max_files=max_files, max_bytes=max_bytes
        )
        return {name: File(data=data, executable=bit) for name, (data, bit) in found.items()}

    async def get(
        self, path: str = ".", *, max_files: int = 10_000, max_bytes: int = 64 << 20
    ) -> dict[str, bytes]:
        """The bytes of the files of ``tree``; raises as that does."""
        found = await self.tree(path, max_files=max_files, max_bytes=max_bytes)
        return {name: file.data for name, file in found.items()}

    async def freeze(self) -> None:
        """End every process in the box, for good; files can still be read."""
        self._frozen = True
        await self.end_commands()

    async def end_commands(self) -> None:
        """End every command that runs in the box; others can be run afterwards."""
        await completed(end_all(self._running, self._launch.stop))

    async def alive(self) -> bool:
        """True while commands can be run in this very box."""
        return self._problem() == ""

    async def close(self) -> None:
        """Remove the box and everything in it; harmless when repeated."""
        self._frozen = True
        await completed(self._close())

    def _write(self, files: Mapping[str, bytes], executable: Collection[str]) -> None:
        for path, data in files.items():
            write_below(self.folder, path, data, executable=path in executable)

    async def _close(self) -> None:
        # Another box may have the name of a closed one: it is not ours to remove.
        found = workspace.find(self._root, self.name)
        ours = found is not None and found.id == self._record.id
        if ours:
            workspace.condemn(self._root, self.name)
        await end_all(self._running, self._launch.stop)
        if ours and not destroyed_at_once(self._root, self.name):
            await asyncio.to_thread(destroy, self._root, self.name)

    def _crowded(self, ended: Ended) -> bool:
        """Whether a command never started because the box had no process left for it."""
        return self._launch.told(ended) is None and _NO_ROOM in ended.result.stderr

    def _judged(self, ended: Ended, *, oom: bool) -> ExecResult:
        """What the command did, after what became of the box."""
        self._check_exists()
        if self._record.expired:
            raise BoxDied(f"{self.name}: its time to live is over", by_agent=False)
        result = self._launch.told(ended)
        if result is None:
            text = ended.result.stderr.decode(errors="replace").strip()
            raise SandboxError(f"the box did not start: {text or ended.result.exit_code}")
        return replace(result, oom=oom)

    def _check(self) -> None:
        if problem := self._problem():
            raise BoxDied(f"{self.name}: {problem}", by_agent=False)

    def _check_exists(self) -> None:
        if not self._exists():
            raise BoxDied(f"{self.name}: it was removed", by_agent=False)

    def _problem(self) -> str:
        if not self._exists():
            return "it was removed"
        if self._frozen:
            return "it is frozen"
        return "its time to live is over" if self._record.expired else ""

    def _exists(self) -> bool:
        """False as soon as somebody removes this box, even if there is another of its name."""
        found = workspace.find(self._root, self.name)
        return found is not None and found.id == self._record.id and found.expires > 0

    def _prologue(self) -> list[str]:
        script = _PROLOGUE.format(limits="; ".join(_rlimits(self._spec.limits)))
        return ["/bin/sh", "-c", script, "sh", *self.cgroup.entries, "--"]


def _rlimits(limits: Limits) -> list[str]:
    """What the shell sets; memory only per process, where no cgroup bounds that of the box."""
    memory = [] if "memory" in cgroup_guarantees() else [f"ulimit -v {limits.memory >> 10}"]
    return ["ulimit -c 0", f"ulimit -f {limits.files >> 9}", *memory]


def file_with(data: bytes) -> int:
    """A descriptor from which a child that inherits it reads ``data``."""
    handle = os.memfd_create("palestra")
    try:
        with os.fdopen(handle, "wb", closefd=False) as file:
            file.write(data)
        os.lseek(handle, 0, os.SEEK_SET)
    except BaseException:
        os.close(handle)
        raise
    return handle
