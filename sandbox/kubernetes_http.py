"""The connection to the agent of a box (``kubernetes_agent``): HTTP, as a ``Channel``.

Each direction counts its bytes, so a request whose answer was lost is sent again: nothing is done
twice, and a box outlives connections that break.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from palestra.sandbox.kubernetes_agent import ENDED, PART, TOKEN, WAIT_S

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

_RETRY_S = 10.0
_CONNECT_S = 5.0
_GRACE_S = 10.0
_PAUSE_S = 0.05
_ROOM = 4 << 20
_LEAVE_S = 2.0
_FINAL = (400, 403, 404, 405, 409, 410, 413)


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Where an agent is: ``url`` of it, and what those on the way to it ask for. ``headers`` gives
    credentials, which may change."""

    url: str
    headers: Callable[[], Awaitable[Mapping[str, str]]]
    tls: ssl.SSLContext | None = None
    proxy: str | None = None


class HttpChannel:
    """What is sent to and received from the supervisor behind an agent.

    Example: ``await HttpChannel.opened(way, token, patience_s=60.0)``
    """

    def __init__(self, session: ClientSession, way: Way) -> None:
        self._session = session
        self._way = way
        self._credentials: Mapping[str, str] = {}
        self._waiting = bytearray()
        self._sent = self._received = 0
        self._fault: OSError | None = None
        self._more, self._room = asyncio.Event(), asyncio.Event()
        self._closing: asyncio.Task[None] | None = None
        self._writer = asyncio.create_task(self._write())

    @classmethod
    async def opened(cls, way: Way, token: str, *, patience_s: float) -> HttpChannel:
        """Once the agent answers, within ``patience_s`` seconds; raises ``OSError``."""
        import aiohttp

        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=way.tls or True, limit=4),
            headers={TOKEN: token, "User-Agent": "palestra"},
            timeout=aiohttp.ClientTimeout(total=WAIT_S + _GRACE_S, sock_connect=_CONNECT_S),
            trust_env=False,
            auto_decompress=False,
        )
        channel = cls(session, way)
        try:
            channel._credentials = await way.headers()
            await channel._asked("POST", "in", at=0, patience_s=patience_s)
        except BaseException:
            # Without a word to the agent, which another channel may be there for.
            channel._writer.cancel()
            await session.close()
            raise
        return channel

    async def send(self, data: bytes) -> None:
        """Write all of ``data``; raises ``OSError``. What is cancelled has been sent."""
        if self._fault:
            raise self._fault
        self._waiting += data
        self._more.set()
        while len(self._waiting) > _ROOM and not self._fault:
            self._room.clear()
            await self._room.wait()

    async def receive(self) -> bytes:
        """The next bytes from the supervisor, none at the end; raises ``OSError``."""
        while True:
            data, last = await self._asked("GET", "out", at=self._received)
            self._received += len(data)
            if data or last:
                return data

    def close(self) -> None:
        """Tell the agent that nobody needs its box, as far as it can be told, and let go; harmless
        when repeated."""
        self._fault = self._fault or OSError("closed")
        self._writer.cancel()
        self._closing = self._closing or asyncio.create_task(self._leave())

    async def left(self) -> None:
        """Close, and wait until that is done."""
        self.close()
        assert self._closing is not None
        await asyncio.shield(self._closing)

    async def _leave(self) -> None:
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(_LEAVE_S):
                await self._asked("DELETE", "", at=0, patience_s=0.0)
        await self._session.close()

    async def _write(self) -> None:
        try:
            while True:
                await self._more.wait()
                self._more.clear()
                while self._waiting:
                    part = bytes(self._waiting[:PART])
                    await self._asked("POST", "in", at=self._sent, data=part)
                    self._sent += len(part)
                    del self._waiting[: len(part)]
                    self._room.set()
        except OSError as fault:
            self._fault = fault
        finally:
            self._room.set()

    async def _asked(
        self,
        method: str,
        path: str,
        *,
        at: int,
        data: bytes = b"",
        patience_s: float | None = None,
    ) -> tuple[bytes, bool]:
        """What the agent answers and whether it is the last; asks again for ``patience_s`` seconds
        when it is not reached. Raises ``OSError``."""
        from aiohttp import ClientError

        patience_s = _RETRY_S if patience_s is None else patience_s
        until: float | None = None
        while True:
            try:
                async with self._session.request(
                    method,
                    f"{self._way.url}/{path}?at={at}",
                    data=data,
                    headers=self._credentials,
                    proxy=self._way.proxy,
                    allow_redirects=False,
                ) as answer:
                    body = await answer.read()
                    if answer.status in (200, 204):
                        return body, ENDED in answer.headers
                    fault = OSError(f"the agent answers {_said(answer, body)}")
                    if answer.status in _FINAL:
                        raise _Final(str(fault))
                    if answer.status == 401:
                        self._credentials = await self._way.headers()
            except _Final:
                raise
            except (ClientError, TimeoutError, OSError) as error:
                fault = OSError(f"the agent is not reached: {error or type(error).__name__}")
            # From the first failure on: an answer may take long by itself.
            until = until or time.monotonic() + patience_s
            if time.monotonic() >= until:
                raise fault
            await asyncio.sleep(_PAUSE_S)


class _Final(OSError):
    """Asking again is no use."""


def _said(answer: ClientResponse, body: bytes) -> str:
    return f"{answer.status} {' '.join(body[:200].decode(errors='replace').split())}".strip()
