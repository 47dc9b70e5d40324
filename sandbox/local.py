"""What the providers of this machine share: a work folder, limits, and a command line to wrap."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from palestra.rl.errors import SandboxError, boundary
from palestra.rl.types import ExecResult, Sandbox
from palestra.sandbox import workspace
from palestra.sandbox.base import completed
from palestra.sandbox.files import read_below, write_below
from palestra.sandbox.limits import Cgroup, Limits
from palestra.sandbox.process import (
    REPORT_VARIABLE,
    Command,
    Ended,
    kill_group,
    run_process,
)

PYTHON = Path(sys.base_prefix)
SEARCH_PATH = f"{PYTHON}/bin:/usr/local/bin:/usr/bin:/bin"

# Limits that a process hands on to its children; 0 written to a cgroup file moves the writer.
_PROLOGUE = (
    "ulimit -c 0; ulimit -f {blocks}; "
    'while [ "$1" != -- ]; do echo 0 > "$1" || exit 125; shift; done; shift; exec "$@"'
)

Wrap = Callable[[Sequence[str], Mapping[str, str], int], Command]
"""``(argv, environment, status_fd)`` to the command that runs it inside the box."""


class LocalBox:
    """A box of this machine; ``wrap`` is all that differs between providers."""

    def __init__(self, folder: Path, wrap: Wrap, *, cgroup: Cgroup, limits: Limits) -> None:
        self.folder = folder
        self._wrap = wrap
        self._cgroup = cgroup
        self._limits = limits
        self.stop: Callable[[int], None] = kill_group
        self.started: Callable[[Ended], bool] = lambda ended: True
        self.shell_signals = False

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
        """Run a command in the work folder; see ``Sandbox.exec``. Raises ``SandboxError``."""
        argv = ["/bin/sh", "-c", argv] if isinstance(argv, str) else argv
        if any("\0" in word for word in argv) or not argv:
            raise SandboxError("argv must be non-empty and free of NUL")

        def make(report_fd: int, status_fd: int) -> Command:
            extra = {REPORT_VARIABLE: str(report_fd)} if report else {}
            command = self._wrap(argv, {**(env or {}), **extra}, status_fd)
            fds = (*command.fds, *((report_fd,) if report else ()))
            return replace(command, fds=fds, argv=[*self._prologue(), *command.argv])

        ended = await run_process(
            make, stdin=stdin, timeout=timeout, max_output=max_output, stop=self.stop
        )
        result = ended.result
        if not result.timed_out and not self.started(ended):
            text = result.stderr.decode(errors="replace").strip()
            raise SandboxError(f"the box did not start: {text or result.exit_code}")
        code = result.exit_code or 0
        if self.shell_signals and 128 < code <= 192:
            return replace(result, exit_code=None, signal=code - 128)
        return result

    async def read(self, path: str, *, max_bytes: int = 1 << 20) -> bytes:
        """Read a regular file below the work folder; raises ``PathRefused``."""
        return read_below(self.folder, path, max_bytes)

    async def write(self, path: str, data: bytes) -> None:
        """Write a file below the work folder; raises ``PathRefused``."""
        write_below(self.folder, path, data)

    def _prologue(self) -> list[str]:
        script = _PROLOGUE.format(blocks=self._limits.files // 512)
        return ["/bin/sh", "-c", script, "sh", *self._cgroup.entries, "--"]


@asynccontextmanager
async def opened(
    root: Path, limits: Limits, build: Callable[[Path, Cgroup], LocalBox]
) -> AsyncIterator[Sandbox]:
    """A box in a fresh work folder; both are gone afterwards, whatever happened."""
    folder = workspace.create(root)
    cgroup: Cgroup | None = None
    try:
        async with boundary(SandboxError, "opening a box"):
            cgroup = Cgroup(folder.name, limits)
            box = build(folder, cgroup)
        yield box
    finally:
        await completed(asyncio.to_thread(_destroy, folder, cgroup))


def _destroy(folder: Path, cgroup: Cgroup | None) -> None:
    if cgroup is not None:
        cgroup.remove()
    workspace.remove(folder)


def pipe_with(data: bytes) -> int:
    """The read end of a pipe that holds ``data`` (at most 64 KiB)."""
    reader, writer = os.pipe()
    os.write(writer, data)
    os.close(writer)
    return reader
