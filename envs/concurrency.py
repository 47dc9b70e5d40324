"""Work on many items at once, with a bound."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


async def bounded(
    work: Callable[[T], Awaitable[R]], items: Iterable[T], concurrency: int
) -> list[R]:
    """``work`` on every item, at most ``concurrency`` at a time; results in order.

    An item is taken when its turn comes. The first exception cancels the rest, waits until they
    have ended, and is raised.
    """
    results: dict[int, R] = {}
    waiting = enumerate(items)

    async def turn() -> None:
        for place, item in waiting:
            results[place] = await work(item)

    running = [asyncio.ensure_future(turn()) for _ in range(concurrency)]
    try:
        await asyncio.gather(*running)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    return [results[place] for place in range(len(results))]
