"""How a driver gets through to a box: by HTTP to the agent in its Pod, straight or through the API
server, or without an agent over a websocket of the API server."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, TypeAlias

from palestra.sandbox import kubernetes_status as status
from palestra.sandbox.base import CreateError
from palestra.sandbox.kubernetes_agent import HEARD
from palestra.sandbox.kubernetes_api import Api
from palestra.sandbox.kubernetes_http import HttpChannel, Way
from palestra.sandbox.kubernetes_injection import AGENT, PORT
from palestra.sandbox.kubernetes_stream import Stream

Transport: TypeAlias = Literal["auto", "direct", "proxy", "websocket"]
HTTP: tuple[Transport, ...] = ("direct", "proxy")
"""Ways to an agent, best first: the API server has no part in the first."""
MEANING: Mapping[str, str] = {
    "direct": "by HTTP at the address of their Pod",
    "proxy": "by HTTP through the API server",
    "websocket": "over websockets of the API server",
}

_TRY_S, _HEAR_S = 8.0, 20.0


class Unreachable(CreateError):
    """There is a box with an agent, but no way to it."""

    def __init__(self, text: str) -> None:
        super().__init__("start", text)


def way(api: Api, found: Mapping[str, Any], transport: Transport) -> Way:
    """The way ``transport`` to the agent of a Pod as the API server shows it."""
    if transport == "direct":
        host = found["status"]["podIP"]
        return Way(url=f"http://{f'[{host}]' if ':' in host else host}:{PORT}", headers=_nothing)
    return Way(
        url=f"{api.host}{api.path(f'pods/{status.name(found)}')}:{PORT}/proxy",
        headers=partial(api.run, api.headers),
        tls=api.tls if api.host.startswith("https") else None,
        proxy=api.proxy,
    )


async def opened(
    api: Api, found: Mapping[str, Any], transport: Transport, token: str, *, patience_s: float
) -> tuple[Transport, HttpChannel]:
    """The first way of ``transport`` on which the agent answers; raises ``Unreachable``."""
    tried = HTTP if transport == "auto" else (transport,)
    problems = []
    for one in tried:
        patience = _TRY_S if one != tried[-1] else patience_s
        try:
            channel = HttpChannel.opened(way(api, found, one), token, patience_s=patience)
            return one, await channel
        except OSError as error:
            problems.append(f"{one}: {error}")
    raise Unreachable(f"{status.name(found)}: no way to its {AGENT}: {'; '.join(problems)}")


async def introduce(api: Api, name: str, digest: str) -> None:
    """Tell the agent of a box that was kept warm whose token it has to ask for, over the API
    server, which asks who we are. Raises ``Unreachable`` and ``ApiFault``."""
    stream = await Stream.attached(api, name, container=AGENT)
    heard = b""
    try:
        async with asyncio.timeout(_HEAR_S):
            await stream.send(digest.encode() + b"\n")
            while not heard.endswith(HEARD) and (said := await stream.receive()):
                heard += said
    except OSError as error:
        raise Unreachable(f"{name}: its {AGENT} does not hear us: {error}") from error
    finally:
        stream.close()
    if not heard.endswith(HEARD):
        raise Unreachable(f"{name}: its {AGENT} has a driver already, or has ended")


async def _nothing() -> Mapping[str, str]:
    await asyncio.sleep(0)
    return {}
