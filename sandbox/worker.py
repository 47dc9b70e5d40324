"""The supervisor inside the box: forks a candidate per job and reports what it answered.

Sent as text and run by whatever Python the box has: standard library only, and few imports, since
their start-up is paid on every grade. Only this process holds the report descriptor. A candidate
is forked before any test is a Python object here, and never inherits the memory tests lie in.
"""

from __future__ import annotations

import os
import resource
import select
import sys
import time

from palestra.sandbox.codec import decode, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn, TypedDict

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


HELLO = b"palestra 1"
VALUE, ERROR, PASSED, FAILED, TIMEOUT = b"v", b"e", b"p", b"f", b"t"

_TMP = os.environ.get("TMPDIR", "/tmp")
SUITE_LIMITS = 5.0
"""A test of a suite, which imports a whole project, may take so many times the limit of a check."""

# Programs are stopped in time by whoever runs them.
_PROGRAM_LIMITS = 30.0

_HEADER = 9
_MAX_RESTARTS = 20
# A busy check is stopped after one limit of processor time, an idle one after 1.5 limits by the
# clock: on a crowded machine a check that gets little processor time is slow, not hung.
_IDLE_LIMITS = 1.5
_IDLE_CPU_S = 0.001
_WALL_LIMITS = 10.0
# A job that hung for one limit in all is not continued.
_HUNG_LIMITS = 0.99


def main(plan: Plan) -> None:
    """Run every job of the plan; returns when all is reported."""
    report = int(os.environ.pop("PALESTRA_REPORT_FD"))
    secret = Secret(plan["secret"])
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    for name in plan["preload"]:
        __import__(name)
    write(report, HELLO)
    for number in range(len(plan["jobs"])):
        Supervisor(plan, number, secret, report).run()


def write(fd: int, data: bytes) -> None:
    """Write all of ``data``."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def frame(index: int, kind: bytes, data: bytes) -> bytes:
    """One answer to the check ``index``."""
    return len(data).to_bytes(4, "big") + index.to_bytes(4, "big") + kind + data


def describe(error: BaseException) -> bytes:
    """``ErrorName: message``, cut at 200 bytes; the message is code of the candidate."""
    name = type.__getattribute__(type(error), "__name__")
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 - the candidate may raise anything
        text = "?"
    return f"{name}: {text}".encode(errors="replace")[:200]


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
        if ctypes.CDLL(None).prctl(4, 0, 0, 0, 0) != 0:
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
        Suite(folder, files, tests, wanted, emit).run()

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


class Clock:
    """How much of its time a check has left, by the processor time of ``children``."""

    def __init__(self, children: list[int], check_s: float) -> None:
        self._children = children
        self._check_s = check_s
        self.start()

    def start(self) -> None:
        """Begin anew, for the next check."""
        self._since = self._moved = time.monotonic()
        self._cpu = self._last = self._used()

    @property
    def spent(self) -> float:
        """Seconds since the start, by the clock."""
        return time.monotonic() - self._since

    def left(self) -> float:
        """Seconds that are left; none when it has to be stopped."""
        now, used = time.monotonic(), self._used()
        if used - self._last > _IDLE_CPU_S:
            self._last, self._moved = used, now
        idle = self._moved + _IDLE_LIMITS * self._check_s - now
        wall = self._since + _WALL_LIMITS * self._check_s - now
        return min(self._check_s - (used - self._cpu), idle, wall)

    def _used(self) -> float:
        total = 0.0
        for pid in self._children:
            try:
                # The processor-time clock of another process, as clock_getcpuclockid(3) forms it.
                total += time.clock_gettime((~pid << 3) | 2)
            except OSError:
                continue
        return total


class Watch:
    """Reads the answers of one child until all came, one hangs, or the child ends."""

    def __init__(
        self,
        fd: int,
        children: list[int],
        pending: list[int],
        kinds: bytes,
        check_s: float,
        token: bytes,
    ) -> None:
        self._fd = fd
        self._children = children
        self._pending = pending
        self._kinds = kinds
        self._token = token
        self._buffer = bytearray()
        self.clock = Clock(children, check_s)

    def run(self, emit: Callable[[int, bytes, bytes], None]) -> tuple[bytes, bytes]:
        """What to say of the first check that is left, if any is."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        exited = os.pidfd_open(self._children[0])
        poll.register(exited, select.POLLIN)
        try:
            while self._pending:
                ready = [fd for fd, _ in poll.poll(max(20.0, self.clock.left() * 1000))]
                data = os.read(self._fd, 1 << 16) if self._fd in ready else b""
                if ready and not data:
                    return ERROR, b"the process ended"
                if not ready and self.clock.left() <= 0:
                    return TIMEOUT, f"no answer after {self.clock.spent:.1f} s".encode()
                self._buffer += data
                if not self._take(emit):
                    return ERROR, b"malformed answer"
        finally:
            os.close(exited)
        return ERROR, b""

    def _take(self, emit: Callable[[int, bytes, bytes], None]) -> bool:
        while len(self._buffer) >= _HEADER:
            size = int.from_bytes(self._buffer[:4], "big")
            index = int.from_bytes(self._buffer[4:8], "big")
            kind = bytes(self._buffer[8:_HEADER])
            if index not in self._pending or kind not in self._kinds or size > 1 << 24:
                return False
            if len(self._buffer) < _HEADER + size:
                return True
            data = bytes(self._buffer[_HEADER : _HEADER + size])
            if not data.startswith(self._token):
                return False
            emit(index, kind, data[len(self._token) :])
            self._pending.remove(index)
            del self._buffer[: _HEADER + size]
            self.clock.start()
        return True


def serve(reader: int, writer: int) -> None:
    """Be the candidate side of remote calls until the tester is gone."""
    from palestra.sandbox.peer import Peer

    Peer(reader, writer, trusted=False).serve_forever()


def leave(work: Callable[[], None]) -> NoReturn:
    """Do ``work`` as a forked child and end without running anything of the parent's."""
    try:
        work()
    finally:
        os._exit(70)


def end(pid: int) -> None:
    """Kill a child and its process group, and reap it."""
    for kill in (os.killpg, os.kill):
        try:
            kill(pid, 9)
        except OSError:
            continue
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        return


def keep_only(fds: list[int]) -> None:
    """Close every descriptor above 2 but these."""
    low = 3
    for fd in [*sorted(fds), 4096]:
        os.closerange(low, fd)
        low = fd + 1


def limit(memory: int) -> None:
    """Bound address space (bytes), file size and core dumps for good."""
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 20, 64 << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def import_sites() -> None:
    """Add the packages that are installed in the box, which suites may need."""
    import site

    # The step of site.main that knows virtual environments; others would run what lies in the box.
    site.addsitepackages(site.venv(set(sys.path)) or set())


def lay_out(folder: str, files: dict[str, tuple[bytes, int]]) -> None:
    """Write files with their modes into a folder that has nothing else then."""
    try:
        os.mkdir(folder)  # noqa: PTH102
    except FileExistsError:
        empty(folder)
    for path, (data, mode) in files.items():
        full = f"{folder}/{path}"
        if "/" in path:
            os.makedirs(os.path.dirname(full), exist_ok=True)  # noqa: PTH103, PTH120
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        fd = os.open(full, flags, mode)
        write(fd, data)
        os.close(fd)


def empty(folder: str) -> None:
    """Remove what an earlier start of the same job left."""
    import shutil

    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)  # noqa: PTH108


def load(name: str) -> object:
    """The module ``name``, imported."""
    __import__(name)
    return sys.modules[name]
