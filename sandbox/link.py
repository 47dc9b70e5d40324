"""Our end of the connection to a supervisor (``inbox``): requests out, answers in, many at once.

What runs in a box never holds an end of this connection, and the supervisor only passes on what
it writes inside of frames; still, nothing that comes back is trusted to be small or well formed.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import marshal
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from palestra.sandbox.base import completed
from palestra.sandbox.inbox import BYE, CANCEL, CHUNK, DATA, END, FRAME, PING
from palestra.sandbox.inbox_work import SIZES
from palestra.sandbox.shipping import MAGIC, packed

if TYPE_CHECKING:
    from palestra.sandbox.inbox_processes import Config

BOOT = """
import marshal, os, signal, sys
for number in (signal.SIGALRM, signal.SIGTERM):
    signal.signal(number, lambda *_: os._exit(0))
signal.alarm(int(sys.argv[1]))
if sys.version_info < (3, 9):
    raise SystemExit("python3 is older than 3.9")
def plug(path):
    import socket, time
    with socket.socket(socket.AF_UNIX) as way:
        while way.connect_ex(path):
            time.sleep(0.01)
        os.dup2(way.fileno(), 0)
        os.dup2(way.fileno(), 1)
if sys.argv[2:]:
    plug(sys.argv[2])
def take(size):
    data = b""
    while len(data) < size:
        more = os.read(0, size - len(data))
        if not more:
            raise SystemExit(0)
        data += more
    return data
magic, modules, config = marshal.loads(take(int.from_bytes(take(4), "big")))
same = getattr(sys.modules["_frozen_importlib_external"], "MAGIC_NUMBER", None) == magic
def load(modules):
    for name, code, text in modules:
        module = sys.modules[name] = type(sys)(name)
        exec(marshal.loads(code) if same else compile(text, name, "exec"), module.__dict__)
load(modules[:2])
sys.modules["palestra.sandbox.inbox"].main(config, lambda: load(modules[2:]))
"""
"""Run by ``python3 -I -S -X utf8 -c BOOT SECONDS [SOCKET]``: waits for its code for that long, and
speaks over a Unix socket, or else over standard input and output."""

_MODULES = ["sandbox.inbox_processes", "sandbox.inbox", "rl.errors", "sandbox.capture"]
_MODULES += ["sandbox.files", "sandbox.inbox_command", "sandbox.inbox_work"]
_CANCEL_S = 10.0


class LinkLost(Exception):
    """The connection ended; ``bye`` when the supervisor said that the time to live is over."""

    def __init__(self, text: str, *, bye: bool = False) -> None:
        super().__init__(text)
        self.bye = bye


class Unfinished(Exception):
    """The process that worked on a request ended without an answer, with wait status ``status``
    (``inbox.NO_PROCESS``: there was none left to be had)."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


class Answer(NamedTuple):
    """The head of an answer, and the bytes after it."""

    head: dict[str, Any]
    body: memoryview


class Channel(Protocol):
    """The way to the standard input and output of a supervisor."""

    async def send(self, data: bytes) -> None:
        """Write all of ``data``; raises ``OSError``."""
        ...

    async def receive(self) -> bytes:
        """The next bytes, none at the end; raises ``OSError``."""
        ...

    def close(self) -> None:
        """Let go; harmless when repeated."""
        ...


class _Pending:
    def __init__(self, room: int) -> None:
        self.room = room
        self.data = bytearray()
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()


class Link:
    """A connection that serves requests; it belongs to the event loop that made it.

    Example: ``link = await Link.opened(channel, config); await link.ping()``
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._numbers = itertools.count(1)
        self._pending: dict[int, _Pending] = {0: _Pending(0)}
        self._lost: LinkLost | None = None
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def opened(cls, channel: Channel, config: Config) -> Link:
        """Send the supervisor its code and wait until it serves; raises ``LinkLost``."""
        link = cls(channel)
        boot = marshal.dumps((MAGIC, packed(*_MODULES), dict(config)), 2)
        hello = link._pending[0].ended
        link._task = asyncio.create_task(link._pump())
        try:
            with suppress(OSError):
                await channel.send(len(boot).to_bytes(4, "big") + boot)
            await hello
        except BaseException:
            link.close()
            raise
        return link

    @property
    def lost(self) -> bool:
        """Whether the connection has ended."""
        return self._lost is not None

    async def call(self, head: dict[str, object], body: bytes = b"", *, room: int) -> Answer:
        """The answer to a request, of at most ``room`` bytes.

        When cancelled it returns once the work in the box has ended, or cuts the connection.
        Raises ``LinkLost`` and ``Unfinished``.
        """
        text = json.dumps(head).encode()
        request = memoryview(b"".join((SIZES.pack(len(text), len(body)), text, body)))
        number, pending = self._begin(room)
        try:
            for at in range(0, len(request), CHUNK):
                await self._send(number, DATA, request[at : at + CHUNK])
            # Or our cancellation would be taken for the end of the work.
            status = await asyncio.shield(pending.ended)
        except asyncio.CancelledError:
            await completed(self._cancel(number, pending))
            raise
        finally:
            del self._pending[number]
        if status:
            raise Unfinished(status)
        try:
            return _parsed(pending.data)
        except LinkLost as lost:
            self._end(lost)
            raise

    async def signal(self, kind: int) -> int:
        """Send a ``PING`` or ``FREEZE`` and return what its end says; raises ``LinkLost``."""
        number, pending = self._begin(0)
        try:
            await self._send(number, kind, b"")
            return await pending.ended
        finally:
            del self._pending[number]

    def close(self) -> None:
        """Cut the connection, which ends the commands that were started over it."""
        self._end(LinkLost("closed"))
        if self._task is not None:
            self._task.cancel()

    def _begin(self, room: int) -> tuple[int, _Pending]:
        if self._lost is not None:
            raise self._lost
        number, pending = next(self._numbers), _Pending(room)
        self._pending[number] = pending
        return number, pending

    async def _send(self, number: int, kind: int, data: memoryview | bytes) -> None:
        try:
            await self._channel.send(FRAME.pack(number, kind, len(data)) + data)
        except OSError as error:
            self._end(LinkLost(str(error)))

    async def _cancel(self, number: int, pending: _Pending) -> None:
        await self._send(number, CANCEL, b"")
        await asyncio.wait([pending.ended], timeout=_CANCEL_S)
        if not pending.ended.done():
            self._end(LinkLost("the supervisor does not answer"))

    async def _pump(self) -> None:
        buffer = bytearray()
        try:
            while data := await self._channel.receive():
                buffer += data
                while len(buffer) >= FRAME.size:
                    number, kind, size = FRAME.unpack_from(buffer)
                    if size > CHUNK:
                        raise LinkLost("malformed answer")
                    if len(buffer) < FRAME.size + size:
                        break
                    self._take(number, kind, bytes(buffer[FRAME.size : FRAME.size + size]))
                    del buffer[: FRAME.size + size]
            raise LinkLost("the connection ended")
        except LinkLost as lost:
            self._end(lost)
        except OSError as error:
            self._end(LinkLost(str(error)))

    def _take(self, number: int, kind: int, data: bytes) -> None:
        pending = self._pending.get(number)
        if kind == BYE:
            raise LinkLost("its time to live is over", bye=True)
        if pending is None or pending.ended.done():
            return
        if kind == DATA:
            pending.data += data
            if len(pending.data) > pending.room:
                raise LinkLost("an answer larger than asked for")
        elif kind in (END, PING):
            pending.ended.set_result(int.from_bytes(data, "big", signed=True))
        else:
            raise LinkLost("malformed answer")

    def _end(self, lost: LinkLost) -> None:
        self._lost = self._lost or lost
        self._channel.close()
        for pending in self._pending.values():
            if not pending.ended.done():
                pending.ended.set_exception(self._lost)
                # Nobody may be waiting: this keeps the loop from complaining about it.
                pending.ended.exception()


def _parsed(data: bytearray) -> Answer:
    try:
        size = int.from_bytes(data[:4], "big")
        head = json.loads(data[4 : 4 + size])
    except ValueError as error:
        raise LinkLost("malformed answer") from error
    return Answer(head, memoryview(data)[4 + size :])
