"""A server that speaks the wire protocol of OpenEnv 0.3, and breaks as it is told to.

``bench/adapters.py`` plays with a server of the package itself (``theirs/counting_server.py``).
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

ACTION = {
    "properties": {
        "metadata": {"type": "object"},
        "number": {"type": "integer"},
        "how": {"type": "string", "default": ""},
    },
    "required": ["number"],
    "type": "object",
}


def heard(total: int, reward: Any = None, done: bool = False) -> str:
    data = {"observation": {"text": f"The total is {total}."}, "reward": reward, "done": done}
    return json.dumps({"type": "observation", "data": data})


def error(code: str, message: str) -> str:
    return json.dumps({"type": "error", "data": {"code": code, "message": message, "errors": []}})


BROKEN = {
    "error": error("EXECUTION_ERROR", "the server broke"),
    "nan": heard(1, float("nan"), True),
    "infinite": heard(1, 10**400, True),
    "text": heard(1, "1.0", True),
    "none": heard(1, None, True),
    "no json": "<html>500</html>",
    "no object": "[]",
    "no observation": json.dumps({"type": "state", "data": {}}),
    "huge": heard(1).replace("The", "The" * (1 << 20)),
}


@pytest.fixture(scope="session")
def serve() -> Callable[..., AbstractContextManager[str]]:
    """Runs a server, with the arguments of ``app``, and gives its address."""

    @contextmanager
    def served(**settings: Any) -> Iterator[str]:
        with running(app(**settings)) as address:
            yield address

    return served


def app(sessions: int = 100, start: Callable[[int], int] | None = None) -> FastAPI:
    """Say numbers until they add up to 10; ``start`` maps a seed to the first total."""
    begin = start or (lambda seed: random.Random(seed).randrange(5))
    server = FastAPI()
    free = threading.Semaphore(sessions)

    @server.get("/schema")
    def schema() -> dict[str, Any]:
        return {"action": ACTION, "observation": {}, "state": {}}

    @server.get("/metadata")
    def metadata() -> dict[str, Any]:
        return {"name": "counting", "description": "Say numbers that add up to 10."}

    @server.websocket("/ws")
    async def session(socket: WebSocket) -> None:
        await socket.accept()
        if not free.acquire(blocking=False):
            await socket.send_text(error("CAPACITY_REACHED", "all sessions are taken"))
            await socket.close()
            return
        try:
            await serve(socket)
        except WebSocketDisconnect:
            pass
        finally:
            free.release()

    async def serve(socket: WebSocket) -> None:
        total = 0
        while True:
            message = json.loads(await socket.receive_text())
            data = message.get("data", {})
            if message["type"] == "close":
                return
            if message["type"] == "reset":
                total = begin(data["seed"])
                await socket.send_text(heard(total))
                continue
            how = data.get("how", "")
            if how == "hang up":
                await socket.close()
                return
            if how == "wait":
                continue
            if how == "not valid":
                await socket.send_text(error("VALIDATION_ERROR", "number is odd"))
                continue
            total += data["number"]
            won = heard(total, float(total == 10), True) if total >= 10 else heard(total, 0.25)
            await socket.send_text(BROKEN.get(how, won))

    return server


@contextmanager
def running(server: FastAPI) -> Iterator[str]:
    """The address of the server, for as long as it runs in a thread."""
    config = uvicorn.Config(server, port=0, log_level="warning", ws="websockets-sansio")
    runner = uvicorn.Server(config)
    socket = config.bind_socket()
    socket.listen()  # who connects before the server is up waits
    thread = threading.Thread(target=runner.run, args=([socket],), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{socket.getsockname()[1]}"
    finally:
        runner.should_exit = True
        thread.join(timeout=20)
        socket.close()
