"""One command in a box, supervised to its end by a process of its own.

That process is the subreaper of everything the command starts: in new sessions or not, orphans
become its children, so that they can be found and end with the command.
"""

from __future__ import annotations

import errno
import os
import resource
import select
import signal
import time

from palestra.sandbox.capture import Capture
from palestra.sandbox.inbox_processes import (
    LIBC,
    become,
    check,
    children,
    expose,
    kill,
    kill_user,
    oom_kills,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from palestra.sandbox.inbox_processes import Config

_SUBREAPER = 36
_CHUNK = 1 << 16
_DRAIN_S = 0.2
_SWEEPS = 200
_GENTLE_SWEEPS = 20
_SWEEP_S = 0.02


class Command:
    """One command, from its start to the end of everything that it started."""

    def __init__(
        self, config: Config, head: dict[str, Any], stdin: bytearray, control: int
    ) -> None:
        self._config = config
        self._head = head
        self._stdin = memoryview(stdin)
        self._control = control
        self._status: int | None = None
        self._cancelled = self._alone = False
        self._poll = select.poll()
        limit = head["max_output"]
        self._out, self._err = Capture(limit), Capture(limit)
        self._report = Capture(config["report"][1], tail=False)
        self._fault = Capture(4096)
        self._sinks: dict[int, Capture] = {}
        self._input = self._wake = -1

    def run(self) -> tuple[dict[str, Any], list[bytes]]:
        """Start it, wait for its end or the deadline, end the rest; the answer and its body."""
        began, oom = time.monotonic(), oom_kills()
        check(LIBC.prctl(_SUBREAPER, 1, 0, 0, 0), "subreaper")
        self._start()
        self._pump(self._head["timeout"], lambda: self._status is not None or self._cancelled)
        timed_out = self._status is None
        if not timed_out:
            self._pump(_DRAIN_S, lambda: not self._sinks)
        self._end()
        self._pump(_DRAIN_S, lambda: not self._sinks)
        parts = [self._out.kept, self._err.kept, self._report.kept]
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        status = self._status or 0
        signalled = os.WIFSIGNALED(status)
        answer = {
            "exit_code": None if timed_out or signalled else os.WEXITSTATUS(status),
            "signal": os.WTERMSIG(status) if signalled and not timed_out else None,
            "timed_out": timed_out,
            "oom": oom_kills() > oom,
            "elided": self._out.elided + self._err.elided,
            "wall_s": time.monotonic() - began,
            "cpu_s": used.ru_utime + used.ru_stime,
            "sizes": [len(part) for part in parts],
            "fault": self._fault.kept.decode() or ("" if self._alone else "processes do not die"),
        }
        return answer, parts

    def _start(self) -> None:
        self._wake, waker = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(waker, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        given, self._input = os.pipe()
        os.set_blocking(self._input, False)
        outputs = {sink: os.pipe() for sink in (self._out, self._err, self._report, self._fault)}
        pid = os.fork()
        if pid == 0:
            self._exec(given, *(writer for _, writer in outputs.values()))
        self._pid = pid
        os.close(given)
        for sink, (reader, writer) in outputs.items():
            os.close(writer)
            os.set_blocking(reader, False)
            self._sinks[reader] = sink
            self._poll.register(reader, select.POLLIN)
        self._poll.register(self._wake, select.POLLIN)
        self._poll.register(self._control, select.POLLIN)
        self._poll.register(self._input, select.POLLOUT)

    def _exec(self, stdin: int, out: int, err: int, report: int, fault: int) -> NoReturn:
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            os.setsid()
            os.dup2(stdin, 0)
            os.dup2(out, 1)
            os.dup2(err, 2)
            env = {"PATH": os.environ.get("PATH", os.defpath), **self._config["env"]}
            env.update(self._head["env"])
            if self._head["report"]:
                os.set_inheritable(report, True)
                env[self._config["report"][0]] = str(report)
            become(self._config)
            self._replace(self._head["argv"], env)
        except BaseException as error:  # noqa: BLE001 - our fault, whatever it is
            os.write(fault, f"{type(error).__name__}: {error}".encode(errors="replace"))
        finally:
            os._exit(126)

    def _replace(self, argv: list[str], env: dict[str, str]) -> None:
        what = self._config["folder"]  # an earlier command may have shut it
        try:
            os.chdir(what)
            what = argv[0]
            os.execvpe(what, argv, env)
        except OSError as error:
            os.write(2, f"{what}: {error.strerror}\n".encode(errors="replace"))
            os._exit(127 if error.errno == errno.ENOENT else 126)

    def _pump(self, seconds: float, done: Callable[[], bool]) -> None:
        """Move bytes and collect the dead until ``done()``, for at most ``seconds``."""
        until = time.monotonic() + seconds
        while not done():
            left = until - time.monotonic()
            if left <= 0:
                return
            for fd, _ in self._poll.poll(left * 1000 + 1):
                self._move(fd)
            self._reap()

    def _move(self, fd: int) -> None:
        if fd == self._control:
            self._cancelled = True
            self._poll.unregister(fd)
        elif fd == self._input:
            self._feed()
        elif fd == self._wake:
            os.read(fd, 512)
        else:
            data = os.read(fd, _CHUNK)
            self._sinks[fd].feed(data)
            if not data:
                self._poll.unregister(fd)
                if self._sinks.pop(fd) is self._fault:
                    expose(self._pid)

    def _feed(self) -> None:
        try:
            if self._stdin:
                self._stdin = self._stdin[os.write(self._input, self._stdin[:_CHUNK]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._stdin = self._stdin[:0]
        if not self._stdin:
            self._poll.unregister(self._input)
            os.close(self._input)

    def _reap(self) -> None:
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self._pid:
                    self._status = status
        except ChildProcessError:
            self._alone = True

    def _end(self) -> None:
        """Kill children until there are none; orphans become ours, so that is all of them."""
        for sweep in range(_SWEEPS):
            self._reap()
            if self._alone:
                return
            if sweep < _GENTLE_SWEEPS:
                kill(children())
            else:
                kill_user(self._config["user"][0])
            self._pump(_SWEEP_S, lambda: self._alone)
