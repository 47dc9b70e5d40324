"""One child process: bounded output, deadline, report descriptor, no survivors on cancellation."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from palestra.rl.errors import SandboxError
from palestra.rl.types import ExecResult
from palestra.sandbox.base import completed
from palestra.sandbox.capture import Capture

REPORT_VARIABLE = "PALESTRA_REPORT_FD"
REPORT_BYTES = 4 << 20

_CHUNK = 1 << 16
_STATUS_BYTES = 4096
_DRAIN_S = 0.2
_KILL_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to start: the environment is exactly ``env``, the inherited descriptors ``fds``.

    ``owned`` descriptors are closed in our process once the command has started.
    """

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    fds: tuple[int, ...] = ()
    owned: tuple[int, ...] = ()


Running: TypeAlias = dict[int, asyncio.Future[None]]
"""Process ids of commands that have not ended, with what is set when they have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A finished process; ``status`` is what the launcher, not the command, wrote about itself."""

    result: ExecResult
    status: bytes


def kill_group(pid: int) -> None:
    """SIGKILL the process group that ``pid`` leads."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


async def run_process(
    make: Callable[[int, int], Command],
    *,
    stdin: bytes,
    timeout: float,
    max_output: int,
    stop: Callable[[int], None] = kill_group,
    running: Running | None = None,
) -> Ended:
    """Start what ``make(report_fd, status_fd)`` says and see it to its end.

    The end is the exit of the main process; output that a background child might still write is
    awaited for 0.2 s. ``timeout`` is in seconds; past it, or on cancellation, ``stop`` is called
    with the process id and SIGKILL follows if that did not help. The process stands in ``running``
    while it runs. Raises ``SandboxError`` when it cannot be started.
    """
    out, err = Capture(max_output), Capture(max_output)
    report = Capture(REPORT_BYTES, tail=False)
    started = time.monotonic()
    with ExitStack() as fds:
        with _starting():
            readers = [_Reader(fds, sink) for sink in (out, err, report)]
            writer = _Writer(fds, stdin)
            # A file, for it is read once: of a pipe we would be told at each of a launcher's words.
            status_fd = os.memfd_create("palestra")
            fds.callback(os.close, status_fd)
            child, watch = _start(make, writer.child_end, readers, status_fd)
            fds.callback(os.close, watch)
        ends: list[_Reader | _Writer] = [writer, *readers]
        for end in ends:
            end.release_child_end()
        timed_out = await _supervise(child, watch, writer, readers, timeout, stop, running)
        status = os.pread(status_fd, _STATUS_BYTES, 0)
    code = child.returncode
    if code is None:
        raise SandboxError(f"process {child.pid} does not die")
    result = ExecResult(
        exit_code=code if code >= 0 and not timed_out else None,
        signal=-code if code < 0 and not timed_out else None,
        timed_out=timed_out,
        stdout=out.kept,
        stderr=err.kept,
        elided=out.elided + err.elided,
        report=report.kept,
        wall_s=time.monotonic() - started,
    )
    return Ended(result=result, status=status)


@contextmanager
def _starting() -> Iterator[None]:
    """Descriptors, processes or memory that the machine lacks are no result of a command."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise SandboxError(f"cannot start a command: {error}") from error


def _start(
    make: Callable[[int, int], Command], stdin: int, readers: list[_Reader], status: int
) -> tuple[subprocess.Popen[bytes], int]:
    """The process, and a pidfd of it; raises ``OSError``, and then it does not run."""
    out, err, report = (reader.child_end for reader in readers)
    command = make(report, status)
    try:
        # Popen, not asyncio's: with a pidfd it needs no thread per process and no child watcher.
        child = subprocess.Popen(
            list(command.argv),
            stdin=stdin,
            stdout=out,
            stderr=err,
            cwd=command.cwd,
            env=dict(command.env),
            pass_fds=command.fds,
            start_new_session=True,
        )
    finally:
        for fd in command.owned:
            os.close(fd)
    try:
        return child, os.pidfd_open(child.pid)
    except OSError:
        kill_group(child.pid)
        child.wait()
        raise


async def _supervise(
    child: subprocess.Popen[bytes],
    watch: int,
    writer: _Writer,
    readers: list[_Reader],
    timeout: float,
    stop: Callable[[int], None],
    running: Running | None,
) -> bool:
    loop = asyncio.get_running_loop()
    exited: asyncio.Future[None] = loop.create_future()
    running = {} if running is None else running
    running[child.pid] = exited
    loop.add_reader(watch, _exited, loop, watch, exited)
    ends: list[_Reader | _Writer] = [writer, *readers]
    for end in ends:
        end.attach(loop)
    try:
        done, _ = await asyncio.wait([exited], timeout=timeout)
        if not done:
            await _end(child.pid, exited, stop)
        await asyncio.wait([reader.closed for reader in readers], timeout=_DRAIN_S)
        return not done
    finally:
        try:
            if not exited.done():
                await completed(_end(child.pid, exited, stop))
        finally:  # a second cancellation comes out of the wait above
            loop.remove_reader(watch)
            for end in ends:
                end.detach(loop)
            # Before the leader is reaped, so that the group number cannot have been given away.
            kill_group(child.pid)
            del running[child.pid]
            child.poll()


async def end_all(running: Running, stop: Callable[[int], None]) -> None:
    """End every running command, as past its deadline; it has ended when this returns."""
    await asyncio.gather(*(_end(pid, exited, stop) for pid, exited in running.items()))


async def _end(pid: int, exited: asyncio.Future[None], stop: Callable[[int], None]) -> None:
    stop(pid)
    done, _ = await asyncio.wait([exited], timeout=_KILL_S)
    if not done:
        kill_group(pid)
        await asyncio.wait([exited], timeout=_KILL_S)


def _exited(loop: asyncio.AbstractEventLoop, watch: int, event: asyncio.Future[None]) -> None:
    # It stays readable: without this the loop would spin until the pipes are at their end.
    loop.remove_reader(watch)
    _mark(event)


def _mark(event: asyncio.Future[None]) -> None:
    if not event.done():
        event.set_result(None)


class _Reader:
    """Our end of a pipe that the child writes to."""

    def __init__(self, fds: ExitStack, sink: Capture) -> None:
        self._fd, self.child_end = os.pipe()
        self._sink = sink
        self._child_open = True
        os.set_blocking(self._fd, False)
        fds.callback(os.close, self._fd)
        fds.callback(self.release_child_end)
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def release_child_end(self) -> None:
        if self._child_open:
            os.close(self.child_end)
            self._child_open = False

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.add_reader(self._fd, self._readable, loop)

    def detach(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.remove_reader(self._fd)

    def _readable(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            data = os.read(self._fd, _CHUNK)
        except BlockingIOError:
            return
        if data:
            self._sink.feed(data)
            return
        loop.remove_reader(self._fd)
        _mark(self.closed)


class _Writer:
    """Our end of the pipe that the child reads its standard input from."""

    def __init__(self, fds: ExitStack, data: bytes) -> None:
        self.child_end, self._fd = os.pipe()
        self._left = memoryview(data)
        self._child_open = self._open = True
        os.set_blocking(self._fd, False)
        fds.callback(self._close)
        fds.callback(self.release_child_end)
        if not data:
            self._close()

    def release_child_end(self) -> None:
        if self._child_open:
            os.close(self.child_end)
            self._child_open = False

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._open:
            loop.add_writer(self._fd, self._writable, loop)

    def detach(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._open:
            loop.remove_writer(self._fd)

    def _writable(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            if self._left:
                self._left = self._left[os.write(self._fd, self._left[:_CHUNK]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._left = self._left[:0]
        if not self._left:
            loop.remove_writer(self._fd)
            self._close()

    def _close(self) -> None:
        if self._open:
            os.close(self._fd)
            self._open = False
