"""The boxes of a pool over their lives: made, kept ready, leased, made as new or removed."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

from palestra.rl.errors import SandboxError, boundary
from palestra.sandbox.base import Backend, Box, BoxSpec, CreateError, completed, reap
from palestra.sandbox.breaker import Breaker, PoolStopped
from palestra.sandbox.config import PoolConfig
from palestra.sandbox.making import Maker, within
from palestra.sandbox.reset import Resets, resetting
from palestra.sandbox.stock import Slot, Stock, kind_of

POOL = "pool"
"""Label of the boxes of one pool."""

_TOTALS = ("created", "leases", "reused", "drifted", "dead", "wait_s")
_T = TypeVar("_T")


class Fleet:
    """What a ``Pool`` runs on, whose arguments these are. Its boxes have ``labels``, and nobody
    else's have ``own``. ``problem`` says why there are no boxes (any more), ``left`` why some may
    be left at the end.

    Example: ``slot = await fleet.lease(BoxSpec()); fleet.retire(slot)``
    """

    def __init__(
        self,
        backend: Backend,
        config: PoolConfig,
        *,
        places: int,
        kinds: Sequence[BoxSpec],
        labels: Mapping[str, str],
        poll_s: float,
        backoff_s: float,
    ) -> None:
        self.own = {POOL: secrets.token_hex(6)}
        self.labels = {**labels, **self.own}
        self.problem = "it is not open"
        self.left = ""
        self._backend = backend
        self._config = config
        self._resets: Resets | None = resetting(backend) if config.reuse else None
        self._kept = {
            kind_of(spec): replace(spec, ttl=spec.ttl + config.shelf_s)
            for spec in map(self._ours, kinds)
        }
        self._maker = Maker(backend, config, self._over, backoff_s=backoff_s)
        self._stock = Stock(places=places, turns=config.creating, late=self._maker.late)
        self._breaker = Breaker(planned=places, failures=config.failures)
        self._poll_s = poll_s
        self._totals = dict.fromkeys(_TOTALS, 0.0)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._cancellable: set[asyncio.Task[Any]] = set()
        self._resting = False

    @property
    def tripped(self) -> str:
        """Why the breaker has tripped, empty if it has not."""
        return self._breaker.problem

    @property
    def leased(self) -> set[str]:
        """Names of the boxes that somebody has."""
        return {slot.box.name for slot in self._stock.leased}

    def start(self) -> None:
        """Begin to make spare boxes, and to watch."""
        self.problem = ""
        self._cancellable.add(self._spawn(self._watch()))
        self._tend()

    async def lease(self, spec: BoxSpec) -> Slot:
        """A box of our own for ``spec``: a spare one, or one made now; to be retired. Raises
        ``CreateError`` and ``PoolStopped``."""
        began, spec = time.monotonic(), self._ours(spec)
        kind = kind_of(spec)
        while (slot := await self._turn(kind)) and not await self._good(slot):
            pass
        try:
            slot = slot or await self._fresh(self._kept.get(kind, spec), kind)
        except SandboxError as error:
            if not self.problem:
                self._breaker.failed(error)
                self._tend()
            raise
        self._totals["leases"] += 1
        self._totals["wait_s"] += time.monotonic() - began
        return slot

    def retire(self, slot: Slot, *, reusable: bool = False) -> bool:
        """Take a box from whoever has it, to remove it or make it as new; False if that is done."""
        if not self._stock.withhold(slot):
            return False
        reusable = reusable and bool(slot.fresh) and not self.problem and not self._old(slot)
        slot.ending = self._spawn(self._ending(slot, reusable=reusable))
        return True

    async def removed(self, slot: Slot) -> None:
        """Retire a box, and wait until it is gone."""
        self.retire(slot)
        if slot.ending:
            await completed(slot.ending)

    def stop(self, problem: str) -> None:
        """Give out nothing any more and remove everything, leased boxes too."""
        if not self.problem:
            self.problem = problem
            self._stock.refuse(PoolStopped(problem))
            for slot in (*self._stock.ready, *self._stock.leased):
                self.retire(slot)

    async def end(self) -> None:
        """Stop, and wait until nothing is left, within the deadline for removing a box."""
        self.stop("it was closed")
        await self._cancelled(self._cancellable)
        until = time.monotonic() + self._config.close_s
        while (work := self._under_way) and (seconds := until - time.monotonic()) > 0:
            await asyncio.wait(work, timeout=seconds)
        await self._cancelled(self._tasks)
        slow = "the backend does not say what has become of some" if self._maker.late else ""
        if problem := await self._swept() or slow:
            command = f"palestra sandbox reap --label {POOL}={self.own[POOL]} --older 0"
            self.left = f"boxes may be left: {problem}; remove them: {command}"

    def metrics(self) -> dict[str, float]:
        """``sandbox/...``: now, who wait, and boxes by what is done with them. Since the start,
        boxes created, leases, boxes used again (``reused``) or not as they had changed
        (``drifted``), spare ones found ``dead`` or too old, seconds that leases waited, and tries
        that failed by stage."""
        failed = {f"failed/{stage}": count for stage, count in self._maker.failed.items()}
        found = {**self._stock.counts(), **self._totals, **failed}
        return {f"sandbox/{name}": float(value) for name, value in found.items()}

    @property
    def _under_way(self) -> set[asyncio.Task[Any]]:
        return self._tasks | self._maker.late | self._maker.pending

    async def _turn(self, kind: str) -> Slot | None:
        """A ready box, or a turn at making one."""
        if self.problem:
            raise PoolStopped(self.problem)
        turn = self._stock.ask(kind)
        self._tend()
        try:
            async with asyncio.timeout(self._config.queue_s):
                return await turn
        except BaseException as error:
            self._stock.withdraw(turn)
            self._tend()
            if not isinstance(error, TimeoutError):
                raise
            self._maker.failed["queue"] += 1
            text = f"no box within {self._config.queue_s:g} s: raise sandbox.pool.places"
            raise CreateError("queue", f"{text}, now {self._stock.places}") from error

    async def _good(self, slot: Slot) -> bool:
        """Whether a spare box still is one; otherwise it is removed."""
        good = False
        try:
            good = await self._fit(slot)
        finally:
            if not good:
                self._totals["dead"] += self.retire(slot)
        return good

    async def _fit(self, slot: Slot) -> bool:
        return not self._old(slot) and await self._maker.answers(slot.box)

    async def _fresh(self, spec: BoxSpec, kind: str) -> Slot:
        """A new box, made in a turn that we have; leased."""
        try:
            slot = Slot(box=await self._maker.made(spec), kind=kind, made=time.monotonic())
            self._stock.leased.add(slot)
        finally:
            self._stock.making -= 1
            self._tend()
        self._breaker.made()
        self._totals["created"] += 1
        try:
            if self._resets and kind in self._kept:
                slot.fresh = await self._resets.fingerprint(slot.box)
            if self.problem:
                raise PoolStopped(self.problem)
        except BaseException:
            self.retire(slot)
            raise
        return slot

    def _tend(self) -> None:
        """Serve who waits, make room for them, and make spare boxes while nobody does."""
        if self._breaker.problem and not self.problem:
            self.stop(self._breaker.problem)
            self._spawn(self._swept())
        if self.problem:
            return
        self._stock.serve()
        for slot in self._stock.surplus():
            self.retire(slot)
        for kind, spec in self._kept.items():
            while not self._resting and self._stock.refill(kind, self._config.spare):
                self._cancellable.add(self._spawn(self._refilled(spec, kind)))

    async def _inspect(self, slot: Slot) -> None:
        """Replace a spare box that is none any more."""
        # It may have been leased in the meantime.
        if not await self._fit(slot) and slot in self._stock.ready:
            self._totals["dead"] += self.retire(slot)

    async def _refilled(self, spec: BoxSpec, kind: str) -> None:
        """One more spare box; where that fails, none is tried before the next poll."""
        try:
            self._stock.shelve(await self._fresh(spec, kind))
        except SandboxError:
            self._resting = True
        finally:
            self._stock.refilling[kind] -= 1
            self._tend()

    async def _ending(self, slot: Slot, *, reusable: bool) -> None:
        try:
            if not (reusable and await self._renewed(slot)):
                await self._maker.removed(slot.box)
        finally:
            self._stock.closing.discard(slot)
            self._tend()

    async def _renewed(self, slot: Slot) -> bool:
        """Ready again if it cannot be told from a fresh box, otherwise False."""
        same = False
        with suppress(SandboxError):
            async with boundary(SandboxError, "reset"):
                same = await self._bounded(self._reset(slot.box)) == slot.fresh
        self._totals["reused" if same else "drifted"] += 1
        if same and not self.problem:
            self._stock.shelve(slot)
            return True
        return False

    async def _reset(self, box: Box) -> str:
        assert self._resets
        await self._resets.reset(box)
        return await self._resets.fingerprint(box)

    def _over(self, box: Box | None) -> None:
        """A creation has ended that nobody waits for; see ``Maker``."""
        if box is not None:
            slot = Slot(box=box, kind="", made=time.monotonic())
            self._stock.leased.add(slot)
            self.retire(slot)
        self._tend()

    async def _watch(self) -> None:
        """Look after the spare boxes, and count all that exist."""
        while True:
            await asyncio.sleep(self._poll_s)
            self._resting = False
            await asyncio.gather(*map(self._inspect, self._stock.ready))
            with suppress(SandboxError):
                async with boundary(SandboxError, "list"):
                    found = await self._bounded(self._backend.list(self.own))
                    self._breaker.counted(len(found))
            self._tend()

    async def _cancelled(self, tasks: set[asyncio.Task[Any]]) -> None:
        await asyncio.sleep(0)  # a task that has not begun cannot give back what was taken for it
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _swept(self) -> str:
        """Remove what the backend still lists of ours; what is wrong if that fails."""
        try:
            async with boundary(SandboxError, "reap"):
                await self._bounded(reap(self._backend, self.own, older_s=0))
        except SandboxError as error:
            return str(error)
        return ""

    def _spawn(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        self._cancellable.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._breaker.trip(f"{type(error).__name__}: {error}")
            self._tend()

    async def _bounded(self, work: Awaitable[_T]) -> _T:
        return await within(self._config.close_s, work, self._maker.leave)

    def _ours(self, spec: BoxSpec) -> BoxSpec:
        return replace(spec, labels={**spec.labels, **self.labels})

    def _old(self, slot: Slot) -> bool:
        return time.monotonic() - slot.made > self._config.shelf_s
