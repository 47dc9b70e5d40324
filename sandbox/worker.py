"""The supervisor inside the box: forks a candidate per job and reports what it answered.

Sent as text and run by whatever Python the box has: standard library only, and few imports, since
their start-up is paid on every grade. Only this process holds the report descriptor. A candidate
is forked before any test is a Python object here, and never inherits the memory tests lie in.
"""

from __future__ import annotations

import os
import sys

from palestra.sandbox.answers import (
    ERROR,
    FAILED,
    HELLO,
    PASSED,
    TIMEOUT,
    VALUE,
    describe,
    frame,
    write,
)
from palestra.sandbox.candidate import (
    alone,
    end,
    import_sites,
    keep_only,
    lay_out,
    leave,
    limit,
    load,
)
from palestra.sandbox.codec import decode, encode
from palestra.sandbox.watch import Watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypedDict

    class Job(TypedDict):
        """One candidate: its files (bytes, mode), ``(index, module, function, arguments)``, its
        tests, those of a suite, its runs as a program, the limit of a check in seconds, and the
        folder that the files go to (empty: a new one)."""

        files: dict[str, tuple[bytes, int]]
        calls: list[tuple[int, str, str, bytes]]
        tests: list[int]
        suite: list[int]
        programs: list[int]
        secret: tuple[int, int]
        check_s: float
        folder: str

    class Plan(TypedDict):
        """What the host asks for; tests follow on standard input as ``secret`` bytes."""

        jobs: list[Job]
        secret: int
        memory: int
        room: int
        preload: list[str]


_TMP = os.environ.get("TMPDIR", "/tmp")
SUITE_LIMITS = 5.0
"""A test of a suite, which imports a whole project, may take so many times the limit of a check."""

# Programs are stopped in time by whoever runs them.
_PROGRAM_LIMITS = 30.0

_MAX_RESTARTS = 20
# A job that hung for one limit in all is not continued.
_HUNG_LIMITS = 0.99


def main(plan: Plan) -> None:
    """Run every job of the plan; returns when all is reported."""
    report = int(os.environ.pop("PALESTRA_REPORT_FD"))
    secret = Secret(plan["secret"])
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    report = alone(report)
    for name in plan["preload"]:
        __import__(name)
    write(report, HELLO)
    for number in range(len(plan["jobs"])):
        Supervisor(plan, number, secret, report).run()


class Secret:
    """Test code from standard input, in memory that a fork does not inherit unless asked to."""

    def __init__(self, size: int) -> None:
        if not size:
            return
        import ctypes
        import mmap

        self._mmap = mmap
        self._map = mmap.mmap(-1, size)
        self._map.madvise(mmap.MADV_DONTFORK)
        view, at = memoryview(self._map), 0
        while at < size:
            count = os.readv(0, [view[at : at + (1 << 20)]])
            if not count:
                raise EOFError("tests cut short")
            at += count
        # PR_SET_DUMPABLE: the candidate runs as our user, and must not open /proc/<us>/fd or mem.
        # Not by a CDLL of our own: making one takes a third of a millisecond.
        if ctypes.pythonapi.prctl(4, 0, 0, 0, 0) != 0:
            raise OSError("cannot hide from the candidate")

    def fork(self) -> int:
        """``os.fork`` whose child can read the tests."""
        self._map.madvise(self._mmap.MADV_DOFORK)
        pid = os.fork()
        if pid:
            self._map.madvise(self._mmap.MADV_DONTFORK)
        return pid

    def read(self, offset: int, size: int) -> object:
        """The tests of one job; only in a child of ``fork``."""
        return decode(self._map[offset : offset + size])


class Supervisor:
    """Runs one job, starting afresh after a check that hung or ended its process."""

    def __init__(self, plan: Plan, number: int, secret: Secret, report: int) -> None:
        self._plan = plan
        self._job = plan["jobs"][number]
        self._number = number
        self._secret = secret
        self._report = report
        self._room = plan["room"]
        self._check_s = self._job["check_s"]
        self._hung = 0.0

    def run(self) -> None:
        """Report every check of the job, unless this process is killed."""
        calls = [call[0] for call in self._job["calls"]]
        self._supervise(calls, self._start_calls, VALUE + ERROR)
        self._supervise(list(self._job["tests"]), self._start_tests, PASSED + FAILED)
        self._supervise(list(self._job["suite"]), self._start_suite, PASSED + FAILED, SUITE_LIMITS)
        programs, kinds = list(self._job["programs"]), VALUE + ERROR + TIMEOUT + PASSED + FAILED
        self._supervise(programs, self._start_programs, kinds, _PROGRAM_LIMITS)

    def _supervise(
        self,
        pending: list[int],
        start: Callable[[list[int]], tuple[list[int], int, bytes]],
        kinds: bytes,
        limits: float = 1.0,
    ) -> None:
        for _ in range(_MAX_RESTARTS):
            if not pending or self._hung >= _HUNG_LIMITS * self._check_s:
                break
            try:
                children, fd, token = start(pending)
            except OSError as error:
                self._emit(pending.pop(0), ERROR, describe(error))
                continue
            watch = Watch(fd, children, pending, kinds, limits * self._check_s, token)
            kind, text = watch.run(self._emit)
            for child in children:
                end(child)
            os.close(fd)
            if kind == TIMEOUT:
                self._hung += watch.clock.spent
            if pending:
                self._emit(pending.pop(0), kind, text)
        for index in pending:
            self._emit(index, TIMEOUT, b"not run: an earlier check used up the time")

    def _emit(self, index: int, kind: bytes, data: bytes) -> None:
        if len(data) > self._room:
            kind, data = ERROR if kind == VALUE else kind, b"value too large"[: self._room]
        self._room -= len(data)
        write(self._report, self._number.to_bytes(4, "big") + frame(index, kind, data))

    def _start_calls(self, pending: list[int]) -> tuple[list[int], int, bytes]:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            leave(lambda: self._candidate([writer], lambda: self._answer(pending, writer)))
        os.close(writer)
        return [pid], reader, b""

    def _start_suite(self, pending: list[int]) -> tuple[list[int], int, bytes]:
        reader, writer = os.pipe()
        token = os.urandom(16)
        pid = self._secret.fork()
        if pid == 0:
            leave(lambda: self._suite(pending, writer, token))
        os.close(writer)
        return [pid], reader, token

    def _start_programs(self, pending: list[int]) -> tuple[list[int], int, bytes]:
        reader, writer = os.pipe()
        pid = self._secret.fork()
        if pid == 0:
            leave(lambda: self._programs(pending, writer))
        os.close(writer)
        return [pid], reader, b""

    def _start_tests(self, pending: list[int]) -> tuple[list[int], int, bytes]:
        to_candidate, to_tester, results = os.pipe(), os.pipe(), os.pipe()
        candidate = os.fork()
        if candidate == 0:
            ends = [to_candidate[0], to_tester[1]]
            leave(lambda: self._candidate(ends, lambda: serve(*ends)))
        tester = -1
        try:
            tester = self._secret.fork()
        finally:
            if tester == -1:
                end(candidate)
        if tester == 0:
            keep_only([to_tester[0], to_candidate[1], results[1]])
            leave(lambda: self._test(pending, to_tester[0], to_candidate[1], results[1]))
        for fd in (*to_candidate, *to_tester, results[1]):
            os.close(fd)
        return [tester, candidate], results[0], b""

    def _candidate(self, fds: list[int], then: Callable[[], None]) -> None:
        self._settle(fds, self._job["files"])
        then()

    def _suite(self, pending: list[int], writer: int, token: bytes) -> None:
        from palestra.sandbox.suite import Suite

        secret: Any = self._secret.read(*self._job["secret"])
        tests = {path: text.encode() for path, text in secret["files"].items()}
        read_only = {path: (data, 0o444) for path, data in tests.items()}
        folder = self._settle([writer], {**self._job["files"], **read_only})
        import_sites()

        def emit(index: int, passed: bool, text: bytes) -> None:
            write(writer, frame(index, PASSED if passed else FAILED, token + text))

        files = {path: data for path, (data, _) in self._job["files"].items()}
        wanted = [each for each in secret["suite"] if each[0] in pending]
        Suite(folder, files, tests, wanted, emit, secret["django"]).run()

    def _programs(self, pending: list[int], writer: int) -> None:
        from palestra.sandbox.programs import Programs

        os.setpgid(0, 0)
        keep_only([writer])
        secret = self._secret.read(*self._job["secret"])
        folder = f"{_TMP}/job-{self._number}-{os.getpid()}"

        def emit(index: int, kind: bytes, data: bytes) -> None:
            write(writer, frame(index, kind, data))

        memory = self._plan["memory"]
        Programs(secret, self._job["files"], folder, memory, self._check_s, emit).run(pending)

    def _settle(self, fds: list[int], files: dict[str, tuple[bytes, int]]) -> str:
        """Become the process of a candidate, whose files lie in the folder returned."""
        os.setpgid(0, 0)
        keep_only(fds)
        limit(self._plan["memory"])
        folder = self._job["folder"] or f"{_TMP}/job-{self._number}-{os.getpid()}"
        lay_out(folder, files)
        os.chdir(folder)
        sys.path[:0] = [folder, f"{folder}/src"]
        # It is no archive: to find that out would take as long as to import from it.
        sys.path_importer_cache[folder] = sys.path_hooks[-1](folder)
        sys.dont_write_bytecode = True
        sys.modules["__main__"] = type(sys)("__main__")
        for path in self._job["files"]:
            sys.modules.pop(path.removeprefix("src/").split("/")[0].removesuffix(".py"), None)
        return folder

    def _answer(self, pending: list[int], writer: int) -> None:
        for index, module, function, arguments in self._job["calls"]:
            if index not in pending:
                continue
            try:
                target: object = load(module)
                for name in function.split("."):
                    target = getattr(target, name.removesuffix("()"))
                    if name.endswith("()"):
                        target = target()  # type: ignore[operator]
                value = target(*decode(arguments))  # type: ignore[misc, operator]
                kind, data = VALUE, encode(value)
            except BaseException as error:  # noqa: BLE001 - the candidate may raise anything
                kind, data = ERROR, describe(error)
            write(writer, frame(index, kind, data))

    def _test(self, pending: list[int], reader: int, writer: int, results: int) -> None:
        from palestra.sandbox.tester import Tester

        os.setpgid(0, 0)
        limit(self._plan["memory"])
        secret = self._secret.read(*self._job["secret"])

        def emit(index: int, passed: bool, text: bytes) -> None:
            write(results, frame(index, PASSED if passed else FAILED, text))

        modules = [path for path in self._job["files"] if path.endswith(".py")]
        Tester(secret, modules, reader, writer, emit).run(pending)


def serve(reader: int, writer: int) -> None:
    """Be the candidate side of remote calls until the tester is gone."""
    from palestra.sandbox.peer import Peer

    Peer(reader, writer, trusted=False).serve_forever()
