"""Live updates: what has changed, as server-sent events; the browser asks for the rest itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from fastapi.sse import ServerSentEvent

POLL_S = 1.0


async def changes(
    fingerprints: Callable[[], dict[str, str]], *, poll_s: float = POLL_S
) -> AsyncIterator[ServerSentEvent]:
    """An event ``run`` with the name of each run that changed, ``runs`` when one came or went.

    The data is JSON and never nothing, which browsers would leave out. ``fingerprints`` is called
    in a thread every ``poll_s`` seconds. The first event is ``hello``.
    """
    known = await asyncio.to_thread(fingerprints)
    yield ServerSentEvent(event="hello", data="")
    while True:
        await asyncio.sleep(poll_s)
        now = await asyncio.to_thread(fingerprints)
        for name in sorted(now.keys() & known.keys()):
            if now[name] != known[name]:
                yield ServerSentEvent(event="run", data=name)
        if now.keys() != known.keys():
            yield ServerSentEvent(event="runs", data="")
        known = now
