"""One WebSocket session of an OpenEnv server: ``reset``, ``step``, and what they answer.

Messages are ``{"type": "reset" | "step" | "close", "data": {...}}``; an answer is of the type
``observation``, with ``observation``, ``reward`` and ``done`` in its data, or ``error``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from palestra.envs.adapters.hosted import STEP_S, HostError
from palestra.envs.arguments import ToolError
from palestra.envs.tools.observed import observed
from palestra.rewards.environment import REWARD
from palestra.rl.errors import UserError
from palestra.rl.types import Json, Observation

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

MAX_MESSAGE = 1 << 20
FREE_S = 300.0
"""Seconds to wait for a session that is free; a server has as many as its author allows."""
RETRY_S = 0.5
CLOSE_S = 5.0
CLOSE = json.dumps({"type": "close"})


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a server says of a reset or a step; ``reward`` is None where it gives none."""

    observation: Observation
    reward: float | None
    done: bool


class Full(HostError):
    """All sessions of the server are taken."""


class OpenEnvSession:
    """An episode on a server; see ``Session``."""

    def __init__(self, socket: ClientConnection, url: str) -> None:
        self._socket = socket
        self._url = url
        self._total: float | None = None
        self._done = False
        self._waiting = False

    @classmethod
    async def open(cls, url: str) -> OpenEnvSession:
        """Connect; raises ``HostError``."""
        from websockets.asyncio.client import connect

        try:
            socket = await connect(
                socket_url(url), open_timeout=STEP_S, max_size=MAX_MESSAGE, proxy=None
            )
        except (OSError, TimeoutError, _socket_error()) as error:
            raise HostError(f"{url}: no connection: {error}") from error
        return cls(socket, url)

    async def reset(self, seed: int) -> str:
        """Start anew with a seed, as soon as the server has a session; what it shows first."""
        deadline = asyncio.get_running_loop().time() + FREE_S
        while True:
            try:
                return (await self._ask("reset", {"seed": seed})).observation.text
            except Full:
                if asyncio.get_running_loop().time() > deadline:
                    raise
            await asyncio.sleep(RETRY_S)
            await self.close()
            self._socket = (await OpenEnvSession.open(self._url))._socket

    async def act(self, name: str, arguments: Mapping[str, Json]) -> Observation:
        """Take a step; see ``Session.act``."""
        answer = await self._ask("step", arguments)
        if answer.reward is not None:
            self._total = (self._total or 0.0) + answer.reward
        self._done = answer.done
        return answer.observation

    async def rewards(self) -> Mapping[str, float]:
        """The sum of the rewards of the steps so far; see ``Session.rewards``."""
        if self._waiting:
            raise HostError(f"{self._url}: did not answer")
        if self._total is None and self._done:
            raise HostError(f"{self._url}: ended an episode and gave no reward")
        return {REWARD: self._total or 0.0}

    async def close(self) -> None:
        """See ``Session.close``."""
        with suppress(OSError, TimeoutError, _socket_error()):
            async with asyncio.timeout(CLOSE_S):
                await self._socket.send(CLOSE)
                await self._socket.wait_closed()  # the server hangs up
        await self._socket.close()

    async def _ask(self, kind: str, data: Mapping[str, Json]) -> Answer:
        self._waiting = True  # stays so when this is cancelled: the next answer would be another's
        try:
            async with asyncio.timeout(STEP_S):
                with suppress(_socket_error()):  # a server that is full says so and hangs up
                    await self._socket.send(json.dumps({"type": kind, "data": data}))
                text = await self._socket.recv()
        except TimeoutError as error:
            raise HostError(f"{self._url}: {kind} was not answered in {STEP_S:g} s") from error
        except (OSError, _socket_error()) as error:
            raise HostError(f"{self._url}: {kind}: {error}") from error
        self._waiting = False
        return read_answer(text, f"{self._url}: {kind}")


def first_observations(url: str, seeds: Sequence[int]) -> dict[int, str]:
    """What a server shows after a reset with each seed, where it is the same twice.

    Raises ``UserError`` when the server cannot be used.
    """
    from websockets.sync.client import connect

    found: dict[int, str] = {}
    try:
        with connect(
            socket_url(url), open_timeout=STEP_S, max_size=MAX_MESSAGE, proxy=None
        ) as socket:
            for seed in seeds:
                shown = set[str]()
                for _ in range(2):
                    socket.send(json.dumps({"type": "reset", "data": {"seed": seed}}))
                    answer = read_answer(socket.recv(timeout=STEP_S), f"{url}: reset")
                    shown.add(answer.observation.text)
                if len(shown) == 1:
                    found[seed] = shown.pop()
            socket.send(CLOSE)
            with suppress(TimeoutError, _socket_error()):
                socket.recv(timeout=CLOSE_S)  # the server hangs up
    except (OSError, TimeoutError, _socket_error(), HostError, ToolError) as error:
        raise UserError(f"openenv:{url}: {error}") from error
    return found


def read_answer(text: str | bytes, what: str) -> Answer:
    """An answer of a server, of which nothing is believed before it is looked at.

    Raises ``ToolError`` for an action that does not fit the server's schema, ``HostError`` for
    everything else that is no observation.
    """
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise HostError(f"{what}: the answer is not JSON: {error}") from error
    data = message.get("data") if isinstance(message, dict) else None
    if not isinstance(data, dict):
        raise HostError(f"{what}: the answer has no data")
    if message.get("type") == "error":
        _refused(data, what)
    shown, reward, done = data.get("observation"), data.get("reward"), data.get("done", False)
    if message.get("type") != "observation" or not isinstance(shown, dict):
        raise HostError(f"{what}: the answer is no observation")
    if not isinstance(done, bool) or not isinstance(reward, float | int | None):
        raise HostError(f"{what}: reward must be a number and done true or false")
    try:
        worth = None if reward is None else float(reward)
    except OverflowError as error:
        raise HostError(f"{what}: the reward is no finite number") from error
    spelled = json.dumps(shown, ensure_ascii=False, indent=1).encode(errors="replace")
    view = observed(spelled)
    return Answer(
        observation=Observation(text=view.text, elided=view.elided, submitted=done),
        reward=worth,
        done=done,
    )


def _refused(data: Mapping[str, Json], what: str) -> None:
    said = str(data.get("message", ""))[:500]
    if data.get("code") == "VALIDATION_ERROR":
        errors = data.get("errors")
        found = (
            [each for each in errors if isinstance(each, dict)] if isinstance(errors, list) else []
        )
        where = "; ".join(f"{each.get('loc')}: {each.get('msg')}" for each in found[:5])
        raise ToolError(f"the action is not valid: {where or said}")
    if data.get("code") == "CAPACITY_REACHED":
        raise Full(f"{what}: {said}")
    raise HostError(f"{what}: {data.get('code')}: {said}")


def socket_url(url: str) -> str:
    """The address of the sessions of a server.

    Example: ``socket_url("http://localhost:8000") == "ws://localhost:8000/ws"``
    """
    return f"ws{url.removeprefix('http')}/ws"


def _socket_error() -> type[Exception]:
    from websockets.exceptions import WebSocketException

    return WebSocketException
