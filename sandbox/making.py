"""Boxes made and removed within deadlines, and tried again where that is safe.

A deadline holds even for work that does not heed its cancellation, as undoing a half-made box does:
such work is left to end by itself, and what comes of it is not forgotten.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, TypeVar

from palestra.rl.errors import SandboxError, boundary
from palestra.sandbox.base import Backend, Box, BoxSpec, CreateError, TransportError
from palestra.sandbox.config import PoolConfig

PERMANENT = frozenset({"image", "permission"})
"""Stages of ``CreateError`` that another try does not change."""

_T = TypeVar("_T")


class Maker:
    """Makes and removes boxes of ``backend``.

    ``over`` is called whenever something here has ended that nobody waits for: with a box that
    nobody wants any more, or with None. Between tries it waits ``backoff_s`` seconds, twice that,
    and so on, give or take a half. ``failed`` counts tries by stage; ``late`` are creations that
    were given up and may still bring a box, ``pending`` other work that was given up.
    """

    def __init__(
        self,
        backend: Backend,
        config: PoolConfig,
        over: Callable[[Box | None], None],
        *,
        backoff_s: float = 0.5,
    ) -> None:
        self.failed: Counter[str] = Counter()
        self.late: set[asyncio.Task[Box]] = set()
        self.pending: set[asyncio.Task[Any]] = set()
        self._backend = backend
        self._config = config
        self._over = over
        self._backoff_s = backoff_s

    async def made(self, spec: BoxSpec) -> Box:
        """A box that takes commands. Raises ``SandboxError``: a ``CreateError`` of stage create or
        ready past those deadlines, or what the backend raised; the last of all tries."""
        pauses = self._pauses()
        while True:
            try:
                return await self._made(spec)
            except SandboxError as error:
                self.failed[_stage(error)] += 1
                pause = next(pauses, None)
                if pause is None or not _transient(error):
                    raise
            await asyncio.sleep(pause)

    async def removed(self, box: Box) -> bool:
        """Remove a box; False when all tries failed."""
        pauses = self._pauses()
        while True:
            try:
                async with boundary(SandboxError, f"{box.name}: close"):
                    await within(self._config.close_s, box.close(), self.leave)
                return True
            except SandboxError:
                self.failed["close"] += 1
                pause = next(pauses, None)
                if pause is None:
                    return False
            await asyncio.sleep(pause)

    async def answers(self, box: Box) -> bool:
        """Whether a box says within its deadline that it takes commands."""
        try:
            async with boundary(SandboxError, f"{box.name}: alive"):
                return await within(self._config.ready_s, box.alive(), self.leave)
        except SandboxError:
            return False

    async def _made(self, spec: BoxSpec) -> Box:
        box = await self._created(spec)
        ready = False
        try:
            ready = await self.answers(box)
        finally:
            if not ready:
                self._over(box)
        if not ready:
            text = f"{box.name} took no commands within {self._config.ready_s:g} s"
            raise CreateError("ready", text)
        return box

    async def _created(self, spec: BoxSpec) -> Box:
        seconds = self._config.create_s
        try:
            async with boundary(SandboxError, "create"):
                return await within(seconds, self._backend.create(spec), self._leave_creation)
        except SandboxError as error:
            if isinstance(error.__cause__, PastDeadline):
                raise CreateError("create", f"no box within {seconds:g} s") from error
            raise

    def _pauses(self) -> Iterator[float]:
        """Seconds to wait before each try but the first."""
        for number in range(self._config.retries):
            yield self._backoff_s * 2**number * random.uniform(0.5, 1.5)

    def leave(self, task: asyncio.Task[Any]) -> None:
        """Let work end by itself that was given up and brings no box."""
        self.pending.add(task)
        task.add_done_callback(partial(_settled, self.pending))

    def _leave_creation(self, task: asyncio.Task[Box]) -> None:
        self.late.add(task)
        task.add_done_callback(self._came_late)

    def _came_late(self, task: asyncio.Task[Box]) -> None:
        _settled(self.late, task)
        failed = task.cancelled() or task.exception()
        self._over(None if failed else task.result())


class PastDeadline(TimeoutError):
    """Our own deadline, not one of the work that it is for."""


async def within(
    seconds: float, work: Awaitable[_T], leave: Callable[[asyncio.Task[_T]], None]
) -> _T:
    """The result of ``work``, or ``PastDeadline`` after ``seconds``, whatever ``work`` does. Then,
    and when we are cancelled, it is cancelled and given to ``leave``."""
    task = asyncio.ensure_future(work)
    done: set[asyncio.Task[_T]] = set()
    try:
        done, _ = await asyncio.wait([task], timeout=seconds)
    finally:
        if not done:
            task.cancel()
            leave(task)
    if not done:
        raise PastDeadline
    return task.result()


def _settled(among: set[asyncio.Task[Any]], task: asyncio.Task[Any]) -> None:
    among.discard(task)
    if not task.cancelled():
        task.exception()  # looked at, or asyncio would complain


def _transient(error: SandboxError) -> bool:
    if isinstance(error, CreateError):
        return error.stage not in PERMANENT
    return isinstance(error, TransportError)


def _stage(error: SandboxError) -> str:
    return error.stage if isinstance(error, CreateError) else "transport"
