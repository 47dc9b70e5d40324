"""The supervisor inside a container: runs commands and tells how they ended.

It arrives as text over the connection that it then serves, so that nothing in the box can change
it: standard library only, Python 3.9 or newer, few imports. Commands are the user of
``config["user"]`` without any capability. There are two ways to be out of their reach:

- it is root without capabilities but SETUID, SETGID and KILL: they can neither signal nor trace it,
  nor open its memory and pipes;
- it is that same user where nobody may be root, as the first process of the container: the kernel
  keeps signals from inside away from that one, and ``hide`` closes memory and pipes. The processes
  it forks can be killed or stopped, which it notices and tells.

Both directions carry frames: id (4 bytes), kind (1), size (4), data. ``DATA`` of a new id begins a
request, for which a process is forked: sizes of head and body (4 bytes each), head (JSON), body.
The answer is size of head, head, body, in ``DATA`` frames made here, then ``END`` with the status
of that process: whatever a command writes is only ever data inside of a frame.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import struct
import time
from contextlib import suppress

from palestra.sandbox.inbox_processes import (
    LIBC,
    check,
    children,
    hide,
    kill,
    kill_user,
    oom_kills,
    survivors,
    write,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from palestra.sandbox.inbox_processes import Config

DATA, END, CANCEL, FREEZE, PING, BYE = range(6)
FRAME = struct.Struct(">IBI")
CHUNK = 1 << 16
NO_PROCESS = -1
"""The status of a request for which the box had no process left."""
OOM = 1 << 16
"""Added to the status of a process that was killed while the box had no memory left."""
ORPHANED = 75
"""The exit code of a supervisor whose connection was lost."""

_SUBREAPER = 36
_FREEZE_S = 3.0
_BACKSTOP_S = 10
_SWEEPS = 50


def main(config: Config, load: Callable[[], None]) -> None:
    """Serve standard input and output until the time to live is over; the status says of which.

    ``load`` brings the modules that requests need. They take time to start, so the driver hears
    first that we are here.
    """
    hide()
    check(LIBC.prctl(_SUBREAPER, 1, 0, 0, 0), "subreaper")
    signal.alarm(int(config["ttl"]) + _BACKSTOP_S)
    supervisor = Supervisor(config)
    supervisor.say(0, PING)
    load()
    raise SystemExit(supervisor.serve())


class Run:
    """The process that works on one request: its number and our ends of its pipes."""

    def __init__(self, number: int, pid: int, request: int, answer: int) -> None:
        self.number = number
        self.pid = pid
        self.request = request
        self.answer = answer
        self.oom_kills = oom_kills()

    def cancel(self) -> None:
        """Closing the pipe of the request says that nobody waits for the answer."""
        if self.request >= 0:
            os.close(self.request)
            self.request = -1


class Supervisor:
    """Forks a process per request and passes bytes on; it interprets none of them."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._runs: dict[int, Run] = {}
        self._answers: dict[int, Run] = {}
        self._buffer = bytearray()
        self._poll = select.poll()
        self._ends = time.monotonic() + config["ttl"]
        self._orphaned = False

    def serve(self) -> int:
        """Until the time to live is over (0), or the connection has been gone for long enough
        (``ORPHANED``)."""
        signal.signal(signal.SIGCHLD, self._rouse)
        self._poll.register(0, select.POLLIN)
        while (left := self._ends - time.monotonic()) > 0:
            for fd, _ in self._poll.poll(min(left, 3600.0) * 1000 + 1):
                if fd == 0:
                    self._listen()
                elif fd in self._answers:
                    self._relay(self._answers[fd])
        self.say(0, BYE)
        return ORPHANED if self._orphaned else 0

    def _rouse(self, *_: object) -> None:
        """End those that were stopped: a command of the same user could, and we would wait."""
        for run in list(self._runs.values()):
            with suppress(ChildProcessError):
                if os.waitid(os.P_PID, run.pid, os.WSTOPPED | os.WNOHANG) is not None:
                    os.kill(run.pid, signal.SIGKILL)

    def _listen(self) -> None:
        data = os.read(0, CHUNK)
        if not data:
            self._poll.unregister(0)
            self._orphaned = True
            self._ends = min(self._ends, time.monotonic() + self._config["orphan_s"])
            for run in self._runs.values():
                run.cancel()
        self._buffer += data
        while len(self._buffer) >= FRAME.size:
            number, kind, size = FRAME.unpack_from(self._buffer)
            if len(self._buffer) < FRAME.size + size:
                break
            data = bytes(self._buffer[FRAME.size : FRAME.size + size])
            del self._buffer[: FRAME.size + size]
            self._obey(number, kind, data)

    def _obey(self, number: int, kind: int, data: bytes) -> None:
        if kind == DATA:
            run = self._runs.get(number) or self._start(number)
            if run is not None and run.request >= 0:
                try:
                    write(run.request, data)
                except BrokenPipeError:
                    run.cancel()
        elif kind == CANCEL and number in self._runs:
            self._runs[number].cancel()
        elif kind == PING:
            self.say(number, END, bytes(4))
        elif kind == FREEZE:
            until = time.monotonic() + _FREEZE_S
            kill_user(self._config["user"][0])
            while (left := len(survivors(self._config["user"][0]))) and time.monotonic() < until:
                time.sleep(0.002)
            self.say(number, END, left.to_bytes(4, "big"))

    def _start(self, number: int) -> Run | None:
        from palestra.sandbox.inbox_work import handle

        request, answer = os.pipe(), os.pipe()
        try:
            pid = os.fork()
        except OSError:
            for fd in (*request, *answer):
                os.close(fd)
            self.say(number, END, NO_PROCESS.to_bytes(4, "big", signed=True))
            return None
        if pid == 0:
            handle(self._config, request[0], answer[1])
        os.close(request[0])
        os.close(answer[1])
        run = self._runs[number] = Run(number, pid, request[1], answer[0])
        self._answers[run.answer] = run
        self._poll.register(run.answer, select.POLLIN)
        return run

    def _relay(self, run: Run) -> None:
        data = os.read(run.answer, CHUNK)
        if data:
            self.say(run.number, DATA, data)
            return
        self._poll.unregister(run.answer)
        os.close(run.answer)
        run.cancel()
        del self._runs[run.number], self._answers[run.answer]
        _, status = os.waitpid(run.pid, 0)
        if status:
            # It cannot have ended its command: what that started is ours now.
            self._end_strays()
            status |= OOM if oom_kills() > run.oom_kills else 0
        self._reap()
        self.say(run.number, END, status.to_bytes(4, "big"))

    def _end_strays(self) -> None:
        """Kill what no process of ours works on; at last, with those, all that commands run."""
        for _ in range(_SWEEPS):
            strays = self._strays()
            if not strays:
                return
            kill([*strays])
            time.sleep(0.002)
            self._reap()
        kill_user(self._config["user"][0])

    def _strays(self) -> set[int]:
        return set(children()) - {run.pid for run in self._runs.values()}

    def _reap(self) -> None:
        """Wait for orphans that are children of ours, and for nothing else."""
        for pid in self._strays():
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                continue

    def say(self, number: int, kind: int, data: bytes = b"") -> None:
        """Send a frame; a connection that is gone is noticed when listening."""
        try:
            write(1, FRAME.pack(number, kind, len(data)) + data)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EBADF):
                raise
