"""Boxes of any backend, some made before they are asked for, all within bounds.

A pool is a backend itself: what opens boxes need not know of it. A box that was used goes to nobody
else, unless it was emptied from outside and cannot be told from a fresh one (``reset``).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from types import TracebackType

from palestra.rl.errors import SandboxError
from palestra.rl.types import Image
from palestra.sandbox.base import Backend, Box, BoxSpec, Found, asked, completed
from palestra.sandbox.breaker import PoolStopped
from palestra.sandbox.config import PoolConfig
from palestra.sandbox.fleet import POOL, Fleet
from palestra.sandbox.leased import Leased
from palestra.sandbox.stock import Slot


class Pool:
    """Leases boxes of ``backend``, at most ``places`` at once. Of each of ``kinds`` it keeps
    ``config.spare`` ready; the first is what ``open`` gives without a ``BoxSpec``. ``labels`` are
    given to every box, with one more that only boxes of this pool have.

    Used as a context, in one event loop. Leaving it removes every box, cancelled or not, and raises
    ``PoolStopped`` if the breaker has tripped, ``SandboxError`` if boxes may be left. Every
    ``poll_s`` seconds it asks the backend which boxes exist and looks after the spare ones;
    ``backoff_s`` is that of ``Maker``. Raises ``UserError`` for a ``config`` that asks to use boxes
    again where they cannot be reset.

    Example: ``async with Pool(Docker(), config, places=8) as pool, pool.open() as box: ...``
    """

    def __init__(
        self,
        backend: Backend,
        config: PoolConfig,
        *,
        places: int,
        kinds: Sequence[BoxSpec] = (BoxSpec(),),
        labels: Mapping[str, str] | None = None,
        poll_s: float = 15.0,
        backoff_s: float = 0.5,
    ) -> None:
        self.name = backend.name
        self.guarantees = backend.guarantees
        self._backend = backend
        self._first = kinds[0]
        self._fleet = Fleet(
            backend,
            config,
            places=places,
            kinds=kinds,
            labels=labels or {},
            poll_s=poll_s,
            backoff_s=backoff_s,
        )
        self.labels: Mapping[str, str] = self._fleet.labels

    async def __aenter__(self) -> Pool:
        self._fleet.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await completed(self._fleet.end())
        if isinstance(error, asyncio.CancelledError | KeyboardInterrupt):
            return
        if self._fleet.tripped:
            raise PoolStopped(self._fleet.tripped) from error
        if self._fleet.left and error is None:
            raise SandboxError(self._fleet.left)

    def open(self, spec: BoxSpec | Image | None = None, /) -> AbstractAsyncContextManager[Box]:
        """A box for the length of a ``with`` block; afterwards it is removed in the background."""
        return self._leasing(asked(spec, self._first))

    async def create(self, spec: BoxSpec) -> Leased:
        """A ready box, or one made now; to be closed. Raises ``CreateError`` (of stage queue,
        create or ready past our own deadlines) and ``PoolStopped``."""
        return self._leased(await self._fleet.lease(spec))

    async def list(self, labels: Mapping[str, str]) -> Sequence[Found]:
        """As the backend's, less those of our own that nobody has leased."""
        found = await self._backend.list(labels)
        ours, leased = self.labels[POOL], self._fleet.leased
        return [box for box in found if box.labels.get(POOL) != ours or box.name in leased]

    async def remove(self, name: str) -> None:
        """As the backend's."""
        await self._backend.remove(name)

    def metrics(self) -> dict[str, float]:
        """See ``Fleet.metrics``."""
        return self._fleet.metrics()

    @asynccontextmanager
    async def _leasing(self, spec: BoxSpec) -> AsyncIterator[Box]:
        slot = await self._fleet.lease(spec)
        leased = self._leased(slot)
        try:
            yield leased
        finally:
            leased.end()
            self._fleet.retire(slot, reusable=leased.sound)

    def _leased(self, slot: Slot) -> Leased:
        return Leased(slot.box, partial(self._fleet.removed, slot))
