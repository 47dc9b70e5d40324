"""The connection to the supervisor in a Pod: attach or exec of the API server, over a websocket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from palestra.sandbox.kubernetes_api import Api, ApiFault, refused
from palestra.sandbox.kubernetes_pod import CONTAINER

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

_PROTOCOL = "v4.channel.k8s.io"
_STDIN, _STDOUT, _STDERR, _STATUS = range(4)
_OPEN_S = 30.0
_BEAT_S = 20.0
_SILENCE_S = 60.0
_COMPLAINT = 2000
_MESSAGE = 1 << 20


class Stream:
    """Standard input and output of a process in a Pod, as a ``Channel``.

    ``status`` is what the other side told of the end of the process, empty while there was none:
    a connection that ends without one was lost.

    Example: ``await Stream.attached(api, "palestra-1")``
    """

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._complaint = bytearray()
        self._beat: asyncio.Task[None] | None = None
        self.status = ""

    @classmethod
    async def attached(cls, api: Api, name: str, *, container: str = CONTAINER) -> Stream:
        """To the first process of a container of the Pod ``name``; raises ``ApiFault``."""
        return await cls._opened(api, f"pods/{name}/attach", container, ())

    @classmethod
    async def started(
        cls, api: Api, name: str, command: Sequence[str], *, container: str = CONTAINER
    ) -> Stream:
        """To a further process in a container of the Pod ``name``; raises ``ApiFault``."""
        return await cls._opened(api, f"pods/{name}/exec", container, command)

    @classmethod
    async def _opened(cls, api: Api, path: str, container: str, command: Sequence[str]) -> Stream:
        import websockets

        query = [("container", container), *(("command", word) for word in command)]
        query += [("stdin", "true"), ("stdout", "true"), ("stderr", "true"), ("tty", "false")]
        address, options = await api.run(partial(api.websocket, path, query))
        try:
            return cls(
                await websockets.connect(
                    address,
                    subprotocols=[websockets.Subprotocol(_PROTOCOL)],
                    compression=None,
                    max_size=_MESSAGE,
                    open_timeout=_OPEN_S,
                    # Pongs of the API server say nothing of the node: ``keep`` asks the supervisor.
                    ping_interval=None,
                    user_agent_header="palestra",
                    **options,
                )
            )
        except websockets.InvalidStatus as error:
            raise refused(error.response.status_code, bytes(error.response.body or b"")) from error
        except (OSError, TimeoutError, websockets.WebSocketException) as error:
            raise ApiFault("start", f"no connection to {path}: {error}") from error

    @property
    def complaint(self) -> str:
        """The last line that came on standard error."""
        lines = self._complaint.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def keep(self, ask: Callable[[], Awaitable[object]], give_up: Callable[[], None]) -> None:
        """Call ``ask`` so often that nobody on the way takes the connection for idle; ``give_up``
        when it gets no answer."""

        async def beat() -> None:
            with suppress(Exception):
                while True:
                    await asyncio.sleep(_BEAT_S)
                    async with asyncio.timeout(_SILENCE_S):
                        await ask()
            give_up()

        self._beat = asyncio.create_task(beat())

    async def send(self, data: bytes) -> None:
        """Write all of ``data``; raises ``OSError``. What is cancelled has been sent."""
        from websockets import ConnectionClosed

        try:
            await self._connection.send(bytes((_STDIN,)) + data)
        except ConnectionClosed as error:
            raise OSError(f"the connection was lost: {error}") from error

    async def receive(self) -> bytes:
        """The next bytes of standard output, none at the end; raises ``OSError``."""
        from websockets import ConnectionClosed

        while True:
            try:
                message = await self._connection.recv(decode=False)
            except ConnectionClosed as error:
                if self.status:
                    return b""
                raise OSError(f"the connection was lost: {error}") from error
            channel, data = message[:1], message[1:]
            if channel == bytes((_STDOUT,)) and data:
                return data
            if channel == bytes((_STDERR,)):
                self._complaint += data
                del self._complaint[:-_COMPLAINT]
            elif channel == bytes((_STATUS,)):
                self.status = _told(data)

    def close(self) -> None:
        """Let go; harmless when repeated."""
        if self._beat is not None:
            self._beat.cancel()
        self._connection.transport.close()


def _told(data: bytes) -> str:
    """How a process ended, in one line: the status object of channel 3, whatever became of it."""
    with suppress(ValueError, AttributeError):
        found = json.loads(data)
        return str(found.get("message") or found.get("status"))
    return data.decode(errors="replace") or "ended"
