"""The Docker daemon as the rest of us sees it: calls off the event loop, faults in one vocabulary.

The ``docker`` package blocks, so its calls run in threads of our own; what it raises becomes a
``DaemonFault`` with one line that says what to change.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from palestra.rl.errors import PalestraError

_T = TypeVar("_T")

_CALL_S = 60
_COMPLAINT = 2000
_STREAM = struct.Struct(">BxxxL")
_STDOUT = 1
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}

_PHRASES = {
    "executable file not found": ("image", "the image lacks python3 in its PATH, which runs boxes"),
    "no such file or directory": ("image", "the image lacks what boxes are run with"),
    "no space left": ("quota", "the daemon's disk is full: remove images or containers"),
    "cannot allocate memory": ("quota", "the machine has no memory for another box"),
    "minimum memory limit": ("quota", "sandbox memory is below what the daemon allows"),
    "range of cpus": ("quota", "more processors per box than the machine has"),
    "unknown or invalid runtime": ("start", "the daemon does not know this runtime"),
    "unknown runtime": ("start", "the daemon does not know this runtime"),
    "toomanyrequests": ("queue", "the registry limits pulls: use a mirror, or pull beforehand"),
}


class DaemonFault(PalestraError):
    """The daemon refused, failed or could not be reached; ``stage`` as in ``CreateError``."""

    def __init__(self, stage: str, text: str) -> None:
        super().__init__(text)
        self.stage = stage


class Daemon:
    """A daemon at ``host`` (empty: ``DOCKER_HOST``, or the usual socket); at most ``workers`` calls
    run at once. Raises ``DaemonFault`` when it cannot be reached.

    Example: ``await Daemon().call(lambda api: api.info())``
    """

    def __init__(self, host: str = "", *, workers: int = 16) -> None:
        self.host = host or os.environ.get("DOCKER_HOST", "") or "unix:///var/run/docker.sock"
        scheme = self.host.partition("://")[0]
        if scheme not in ("unix", "tcp", "http") or os.environ.get("DOCKER_TLS_VERIFY"):
            text = f"{self.host}: boxes need a plain connection; forward the daemon's socket"
            raise DaemonFault("start", f"{text} (ssh -L) and set DOCKER_HOST to it")
        import docker

        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="docker")
        with self._faults():
            self.api = docker.APIClient(
                base_url=self.host, version="auto", timeout=_CALL_S, max_pool_size=workers
            )
            # Kept alive they are of no use: the package has a pool of connections per address.
            self.api.headers["Connection"] = "close"
            arch = str(self.api.version()["Arch"])
            security = " ".join(self.api.info().get("SecurityOptions") or ())
        self.machine = _MACHINES.get(arch, arch)
        self.maps_users = "name=userns" in security or "name=rootless" in security

    async def call(self, work: Callable[[Any], _T]) -> _T:
        """``work(api)`` in a thread; raises ``DaemonFault``. A call that has begun goes on when we
        are cancelled: use ``submit`` where its result must not be lost."""
        return await asyncio.wrap_future(self.submit(work))

    def submit(self, work: Callable[[Any], _T]) -> Future[_T]:
        """Queue ``work(api)``."""
        return self._pool.submit(self.now, work)

    def now(self, work: Callable[[Any], _T]) -> _T:
        """``work(api)`` in this thread; raises ``DaemonFault``."""
        with self._faults():
            return work(self.api)

    @contextmanager
    def _faults(self) -> Iterator[None]:
        from docker.errors import DockerException

        try:
            yield
        # An OSError is what requests, which docker is built on, lets through.
        except (DockerException, OSError) as error:
            raise self._fault(error) from error

    def _fault(self, error: Exception) -> DaemonFault:
        for cause in _causes(error):
            if isinstance(cause, PermissionError):
                text = f"no permission on {self.host}: join the group docker, or set DOCKER_HOST"
                return DaemonFault("permission", text)
            if isinstance(cause, FileNotFoundError | ConnectionError):
                text = f"no Docker daemon at {self.host}: start it, or set DOCKER_HOST"
                return DaemonFault("start", text)
            if isinstance(cause, TimeoutError):
                text = f"the daemon did not answer for {_CALL_S} s: run fewer boxes at once"
                return DaemonFault("queue", text)
        return understood(str(getattr(error, "explanation", "") or error))


def understood(said: str) -> DaemonFault:
    """What a message of the daemon means, as far as it is one we know."""
    line = " ".join(said.split())
    for phrase, (stage, text) in _PHRASES.items():
        if phrase in line.lower():
            return DaemonFault(stage, f"{text} ({line})")
    return DaemonFault("start", line)


class Attached:
    """The hijacked connection of an attach or an exec, as a ``Channel``."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._complaint = bytearray()

    @classmethod
    async def over(cls, connection: socket.socket) -> Attached:
        """Take ``connection`` over."""
        return cls(*await asyncio.open_connection(sock=connection))

    @property
    def complaint(self) -> str:
        """The last line that came on standard error."""
        lines = self._complaint.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    async def send(self, data: bytes) -> None:
        """Write all of ``data``; raises ``OSError``. What is cancelled has been sent."""
        self._writer.write(data)
        await self._writer.drain()

    async def receive(self) -> bytes:
        """The next bytes of standard output, none at the end; raises ``OSError``."""
        while True:
            try:
                stream, size = _STREAM.unpack(await self._reader.readexactly(_STREAM.size))
                data = await self._reader.readexactly(size)
            except asyncio.IncompleteReadError:
                return b""
            if stream == _STDOUT and data:
                return data
            self._complaint += data
            del self._complaint[:-_COMPLAINT]

    def close(self) -> None:
        """Let go; harmless when repeated."""
        self._writer.close()


def hijacked(answer: Any) -> socket.socket:
    """The connection that ``attach_socket`` or ``exec_start`` returned, as one of our own.

    Nothing has been read of it, because the other side does not speak first.
    """
    connection = socket.socket(fileno=os.dup(answer.fileno()))
    # The package ties the two in a cycle, and only this closes its descriptor before it is found.
    getattr(answer, "_response", answer).close()
    return connection


def _causes(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__
