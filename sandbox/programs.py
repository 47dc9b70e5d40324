"""Runs programs as their users would: an interpreter, a file, standard input and output.

Runs inside the box, in a process that candidates can neither read nor trace: between two programs
it ends everything that the first one started, and each finds a folder of its own. Standard library
only.
"""

from __future__ import annotations

import os
import resource
import select
import signal

from palestra.sandbox.answers import ERROR, FAILED, PASSED, TIMEOUT, VALUE, write
from palestra.sandbox.candidate import keep_only, lay_out, leave
from palestra.sandbox.codec import encode
from palestra.sandbox.outputs import WHOLE, digest
from palestra.sandbox.watch import Clock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn, TypedDict

    class Secret(TypedDict):
        """``(index, argv, stdin, whole, by_line)``: an output of more than ``WHOLE`` bytes that is
        not wanted ``whole`` is told as its digest. ``(index, argv, path, code, wrong, done)``."""

        programs: list[tuple[int, tuple[str, ...], str, bool, bool]]
        appended: list[tuple[int, tuple[str, ...], str, str, str, str]]

    Emit = Callable[[int, bytes, bytes], None]

TOKEN = "TOKEN"
_OUTPUT = 16 << 20
_TOLD = 200
_SUBREAPER = 36


class Ended:
    """How a program ended: its exit code (128 and more for a signal) and what it printed; ``late``
    when it was stopped after so many seconds."""

    def __init__(self, code: int, out: bytes, err: bytes, late: float) -> None:
        self.code, self.out, self.err, self.late = code, out, err, late


class Programs:
    """The programs of one job, run one after the other."""

    def __init__(
        self,
        secret: object,
        files: dict[str, tuple[bytes, int]],
        folder: str,
        memory: int,
        check_s: float,
        emit: Emit,
    ) -> None:
        self._secret: Secret = secret  # type: ignore[assignment]
        self._files = files
        self._folder = folder
        self._memory = memory
        self._check_s = check_s
        self._emit = emit
        self._adopt()

    def run(self, pending: list[int]) -> None:
        """Report each of these checks; after one that hangs the others are not run."""
        work: dict[int, Callable[[], tuple[bytes, bytes]]] = {}
        for index, *program in self._secret["programs"]:
            work[index] = lambda program=program: self._printed(*program)  # type: ignore[misc]
        for index, *test in self._secret["appended"]:
            work[index] = lambda test=test: self._appended(*test)  # type: ignore[misc]
        hung = False
        for index in pending:
            kind, data = (TIMEOUT, b"not run: an earlier check used up the time")
            if not hung:
                kind, data = work[index]()
            hung = kind == TIMEOUT
            self._emit(index, kind, data)

    def _printed(
        self, argv: tuple[str, ...], stdin: str, whole: bool, by_line: bool
    ) -> tuple[bytes, bytes]:
        ended = self._execute(self._files, argv, stdin.encode(errors="surrogatepass"))
        if ended.late:
            return TIMEOUT, f"no answer after {ended.late:.1f} s".encode()
        if ended.code:
            return ERROR, _told(ended)
        text = ended.out.decode(errors="replace")
        if len(ended.out) > WHOLE and not whole:
            return VALUE, encode((text[:_TOLD], digest(text, by_line=by_line)))
        return VALUE, encode((text,))

    def _appended(
        self, argv: tuple[str, ...], path: str, code: str, wrong: str, done: str
    ) -> tuple[bytes, bytes]:
        candidate, mode = self._files[path]
        for canary in (True, False):
            token = os.urandom(16).hex()
            tests = f"\n{code}\n{wrong if canary else ''}\n{done.replace(TOKEN, token)}\n"
            files = {**self._files, path: (candidate + tests.encode(), mode)}
            ended = self._execute(files, argv, b"")
            if ended.late:
                return TIMEOUT, f"no answer after {ended.late:.1f} s".encode()
            passed = ended.code == 0 and ended.out.endswith(token.encode())
            if canary and passed:
                return FAILED, b"a test that must fail passed"
        return (PASSED, b"") if passed else (FAILED, _told(ended))

    def _execute(
        self, files: dict[str, tuple[bytes, int]], argv: tuple[str, ...], stdin: bytes
    ) -> Ended:
        import shutil  # its archivers would be copied by every fork of a warm box

        fds = [os.memfd_create(name) for name in ("in", "out", "err")]
        write(fds[0], stdin)
        os.lseek(fds[0], 0, os.SEEK_SET)
        pid = os.fork()
        if pid == 0:
            leave(lambda: self._become(files, argv, fds))
        clock = Clock([pid], self._check_s)
        exited = os.pidfd_open(pid)
        poll = select.poll()
        poll.register(exited, select.POLLIN)
        while not (ready := poll.poll(max(20.0, clock.left() * 1000))) and clock.left() > 0:
            pass
        late = 0.0 if ready else clock.spent
        code = _end(pid)
        os.close(exited)
        out, err = os.pread(fds[1], _OUTPUT, 0), os.pread(fds[2], _OUTPUT, 0)
        for fd in fds:
            os.close(fd)
        shutil.rmtree(self._folder, ignore_errors=True)
        return Ended(code, out, err, late)

    def _become(
        self, files: dict[str, tuple[bytes, int]], argv: tuple[str, ...], fds: list[int]
    ) -> NoReturn:
        os.setpgid(0, 0)
        for number, fd in enumerate(fds):
            os.dup2(fd, number)
        keep_only([])
        # Not the address space: some interpreters reserve far more of it than they use.
        resource.setrlimit(resource.RLIMIT_DATA, (self._memory, self._memory))
        resource.setrlimit(resource.RLIMIT_FSIZE, (_OUTPUT, _OUTPUT))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        lay_out(self._folder, files)
        os.chdir(self._folder)
        env = {**os.environ, "HOME": self._folder, "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            os.execvpe(argv[0], argv, env)
        except OSError as error:
            os.write(2, f"{argv[0]}: {error.strerror}".encode())
            os._exit(127)

    def _adopt(self) -> None:
        """Become the parent of what programs leave behind, so that it can be ended."""
        import ctypes

        if ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0):
            raise OSError("cannot adopt processes")


def _end(pid: int) -> int:
    """Kill a program and everything that it left; its exit code, or 128 and the signal."""
    for kill in (os.killpg, os.kill):
        try:
            kill(pid, signal.SIGKILL)
        except ProcessLookupError:  # it has left its group
            continue
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    while left := _children():
        for child in left:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    return code if code >= 0 else 128 - code


def _children() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:  # noqa: PTH123
            return [int(pid) for pid in file.read().split()]
    except OSError:  # a box that hides /proc
        return []


def _told(ended: Ended) -> bytes:
    """How a program failed, in a few words: its exit code and its last complaint."""
    lines = ended.err.decode(errors="replace").strip().splitlines()
    complaint = next((line for line in reversed(lines) if "rror" in line), "".join(lines[-1:]))
    text = f"exit code {ended.code}: {complaint.strip()}"
    return text.removesuffix(": ").encode(errors="replace")[:_TOLD]
