"""The outside of a warm box: starting a zygote, having it grade, and ending it."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import time
import weakref
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from palestra.rl.errors import BoxDied, SandboxError
from palestra.rl.types import ExecResult
from palestra.sandbox.base import BoxSpec, completed
from palestra.sandbox.capture import Capture
from palestra.sandbox.keeper import destroy
from palestra.sandbox.limits import Limits
from palestra.sandbox.local import LocalBox, WarmLaunch
from palestra.sandbox.plan import ALL_MODULES, PRELOAD
from palestra.sandbox.process import REPORT_BYTES, kill_group
from palestra.sandbox.shipping import PYTHON, booted
from palestra.sandbox.zygote import LATE, READY, WORN

_TTL_S = 24 * 3600.0
_START_S = 20.0
_GRACE_S = 5.0
_ENVIRONMENT = {"PYTHONHASHSEED": "0"}
# random itself is seeded anew by every fork, which takes longer than to import it where it is used.
_PRELOAD = (
    *(name for name in PRELOAD if name != "random"),
    *("bisect", "_random", "datetime", "json", "mmap", "unittest"),
)


class WarmBackend(Protocol):
    """A backend whose boxes may hold a zygote."""

    limits: Limits
    root: Path
    user: int | None

    async def create(self, spec: BoxSpec) -> LocalBox:
        """See ``base.Backend``."""
        ...

    def warm(self, limits: Limits) -> WarmLaunch:
        """How a zygote is started in a box of ``limits``."""
        ...


class Zygote:
    """The outside of one warm box; ``worn`` once it must not be used again.

    Example: ``ended = await (await Zygote.start(Bubblewrap())).grade(request, 10.0)``
    """

    def __init__(self, box: LocalBox, root: Path, launch: WarmLaunch, limits: Limits) -> None:
        self.worn = False
        self._count = 0
        self._driver = os.getpid()
        self._expires = time.monotonic() + _TTL_S / 2
        self._box = box
        with ExitStack() as kept, ExitStack() as given:
            self._socket, inside = socket.socketpair()
            kept.callback(self._socket.close)
            given.callback(inside.close)
            self._socket.setblocking(False)
            self._report, writer = os.pipe()
            kept.callback(os.close, self._report)
            given.callback(os.close, writer)
            os.set_blocking(self._report, False)
            self._problems = os.memfd_create("palestra")
            kept.callback(os.close, self._problems)
            null = os.open(os.devnull, os.O_WRONLY)
            given.callback(os.close, null)
            command = launch.wrap(PYTHON, _ENVIRONMENT, null)
            command = replace(command, fds=(*command.fds, writer))
            self._boot = _boot(launch, limits, writer)
            self._process = box.start(command, inside.fileno(), self._problems)
            # Also at exit, and when a grader is forgotten: it has nobody to close it.
            self._end = weakref.finalize(
                self, _end, self._driver, self._process, kept.pop_all(), root, box.name
            )

    @classmethod
    async def start(cls, backend: WarmBackend) -> Zygote:
        """A zygote that is ready; raises ``SandboxError``."""
        limits = backend.limits
        spec = BoxSpec(limits=limits, ttl=_TTL_S, labels={"purpose": "grading"})
        box = await backend.create(spec)
        try:
            zygote = cls(box, backend.root, backend.warm(limits), limits)
        except BaseException as error:
            await completed(box.close())
            if not isinstance(error, OSError):
                raise
            raise SandboxError(f"a warm box did not start: {error}") from error
        try:
            async with asyncio.timeout(_START_S):
                loop = asyncio.get_running_loop()
                await loop.sock_sendall(zygote._socket, zygote._boot)
                ready = await loop.sock_recv(zygote._socket, 1)
        except (OSError, TimeoutError):
            ready = b""
        except BaseException:
            await completed(zygote.close())
            raise
        if ready != READY:
            problem = zygote._problem()
            await completed(zygote.close())
            raise SandboxError(f"a warm box did not start: {problem}")
        return zygote

    def fit(self, grades: int) -> bool:
        """Whether another grade may be run by it."""
        # A fork of the driver has the same sockets, but must not talk to the same zygotes.
        ours = self._driver == os.getpid() and not self.worn
        fresh = self._count < grades and time.monotonic() < self._expires
        return ours and fresh and self._process.poll() is None

    async def grade(self, request: bytes, timeout: float) -> ExecResult:
        """Run one worker; its end and its report, as ``Sandbox.exec`` would tell them.

        A zygote that dies or that keeps silent past ``timeout`` seconds is worn: what its worker
        had reported is told, because only candidates can have brought that about. Raises
        ``BoxDied`` where somebody has removed the box.
        """
        loop = asyncio.get_running_loop()
        report = Capture(REPORT_BYTES, tail=False)
        self._count += 1
        loop.add_reader(self._report, _drain, self._report, report)
        try:
            async with asyncio.timeout(timeout + _GRACE_S):
                header = max(1, int(timeout * 1000)).to_bytes(4, "big")
                await loop.sock_sendall(self._socket, header + request)
                answer = await loop.sock_recv(self._socket, 1)
        except (OSError, TimeoutError):
            answer = b""
        finally:
            loop.remove_reader(self._report)
        _drain(self._report, report)
        if not answer and not await self._box.alive():
            raise BoxDied(f"{self._box.name}: it was removed", by_agent=False)
        self.worn = self.worn or answer in (b"", WORN)
        return ExecResult(
            exit_code=0 if answer else None,
            timed_out=answer == LATE,
            report=report.kept,
            stderr=self._problem().encode(),
        )

    async def close(self) -> None:
        """End it and everything in its box; harmless when repeated."""
        await asyncio.to_thread(self._end)

    def _problem(self) -> str:
        text = os.pread(self._problems, 4096, 0).decode(errors="replace").strip()
        return text.splitlines()[-1] if text else "it gave no reason"


def tried(launch: WarmLaunch, limits: Limits) -> str:
    """Why a zygote does not work here; empty if it does. Raises ``OSError``, ``TimeoutExpired``."""
    null = os.open(os.devnull, os.O_WRONLY)
    command = launch.wrap(PYTHON, _ENVIRONMENT, null)
    try:
        tried = subprocess.run(
            list(command.argv),
            input=_boot(launch, limits, null, trial=True),
            capture_output=True,
            cwd=command.cwd,
            env=dict(command.env),
            pass_fds=command.fds,
            timeout=_START_S,
            check=False,
        )
    finally:
        for fd in (*command.owned, null):
            os.close(fd)
    text = tried.stderr.decode(errors="replace").strip().splitlines()
    return (text[-1] if text else "no reason") if tried.returncode else ""


def _boot(launch: WarmLaunch, limits: Limits, report: int, *, trial: bool = False) -> bytes:
    config = {
        "user": launch.user,
        "tmp": limits.tmp,
        "pids": limits.pids,
        "report": report,
        "preload": list(_PRELOAD),
        "trial": trial,
    }
    modules = (*ALL_MODULES, "sandbox.rehearsal", "sandbox.zygote")
    return booted(modules, "sandbox.zygote", config)


def _drain(fd: int, sink: Capture) -> None:
    """Take what the pipe holds now."""
    with suppress(BlockingIOError):
        while data := os.read(fd, 1 << 16):
            sink.feed(data)


def _end(
    driver: int,
    process: subprocess.Popen[bytes],
    kept: ExitStack,
    root: Path,
    name: str,
) -> None:
    kept.close()
    if driver != os.getpid():  # a fork of the driver owns nothing
        return
    kill_group(process.pid)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE_S)
    destroy(root, name)
