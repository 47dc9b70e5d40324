"""Pools of boxes that fail on demand: hanging, dying, late; contract/test_pool.py has real ones."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palestra.rl.errors import BoxDied, SandboxError
from palestra.rl.types import ExecResult
from palestra.sandbox.base import BoxSpec, CreateError, Found, TransportError
from palestra.sandbox.breaker import Breaker, PoolStopped
from palestra.sandbox.config import PoolConfig
from palestra.sandbox.pool import Pool
from palestra.sandbox.stock import Slot, Stock

NOW = ("waiting", "creating", "spare", "leased", "closing")


async def turns(count: int) -> None:
    """Let everything else go on ``count`` times."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for it; the test's own time limit ends it."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def hang() -> None:
    await asyncio.Event().wait()


async def deaf(work: Awaitable[None]) -> None:
    """Await ``work`` to its end, whoever cancels it."""
    task = asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            continue
    task.result()


class Boxes:
    """A backend in memory. Each creation and each close does the next of ``creating`` and
    ``closing``, then nothing special; ``held`` boxes exist, ``most`` were the most at once."""

    name = "fake"
    guarantees: frozenset[str] = frozenset()

    def __init__(
        self,
        creating: Sequence[Callable[[], Awaitable[None]]] = (),
        closing: Sequence[Callable[[], Awaitable[None]]] = (),
    ) -> None:
        self.creating = iter(creating)
        self.closing = iter(closing)
        self.held: dict[str, FakeBox] = {}
        self.created = self.making = self.most = self.most_making = 0

    async def create(self, spec: BoxSpec) -> FakeBox:
        self.making += 1
        self.most_making = max(self.most_making, self.making)
        try:
            await next(self.creating, turns_of(1))()
        finally:
            self.making -= 1
        self.created += 1
        box = FakeBox(f"box-{self.created}", self, spec)
        self.held[box.name] = box
        self.most = max(self.most, len(self.held))
        return box

    async def list(self, labels: Mapping[str, str]) -> Sequence[Found]:
        return [
            Found(name=name, labels=box.spec.labels, age_s=1.0, owner_alive=True)
            for name, box in self.held.items()
            if labels.items() <= box.spec.labels.items()
        ]

    async def remove(self, name: str) -> None:
        self.held.pop(name, None)

    def open(self, spec: BoxSpec | None = None, /) -> None:
        raise NotImplementedError


@dataclass(eq=False)
class FakeBox:
    """Lives while its backend holds it; ``uses`` are those who ran a command in it."""

    name: str
    backend: Boxes
    spec: BoxSpec
    uses: list[object] = field(default_factory=list)

    async def exec(self, argv: object, **_: object) -> ExecResult:
        if self.name not in self.backend.held:
            raise BoxDied(self.name, by_agent=False)
        await turns(2)
        self.uses.append(argv)
        return ExecResult(exit_code=0)

    async def alive(self) -> bool:
        await turns(8)
        return self.name in self.backend.held

    async def close(self) -> None:
        await next(self.backend.closing, turns_of(1))()
        self.backend.held.pop(self.name, None)


def turns_of(count: int) -> Callable[[], Awaitable[None]]:
    return lambda: turns(count)


def failing(error: Exception) -> Callable[[], Awaitable[None]]:
    async def fail() -> None:
        await turns(1)
        raise error

    return fail


@asynccontextmanager
async def pooled(boxes: Boxes, *, places: int = 4, **config: object) -> AsyncIterator[Pool]:
    """A pool without patience; at the end nothing may be left in it or of it."""
    impatient = {"spare": 0, "create_s": 0.05, "ready_s": 0.05, "close_s": 0.05, "queue_s": 5.0}
    settled = PoolConfig.model_validate({**impatient, **config})
    pool = Pool(boxes, settled, places=places, poll_s=0.01, backoff_s=0.001)  # type: ignore[arg-type]
    try:
        async with pool:
            yield pool
    finally:
        assert now(pool) == dict.fromkeys(NOW, 0)
        assert not boxes.held


def now(pool: Pool) -> dict[str, float]:
    metrics = pool.metrics()
    return {name: metrics[f"sandbox/{name}"] for name in NOW}


def failed(pool: Pool) -> dict[str, float]:
    found = pool.metrics().items()
    return {key.partition("failed/")[2]: count for key, count in found if "failed/" in key}


# --- making boxes --------------------------------------------------------------------------------


async def test_a_creation_that_hangs_is_given_up_and_tried_again() -> None:
    async with pooled(Boxes(creating=[hang])) as pool:
        async with pool.open() as box:
            assert (await box.exec(["true"])).exit_code == 0
        assert failed(pool) == {"create": 1}


async def test_a_box_that_comes_too_late_is_removed() -> None:
    """The daemon was asked, and does what it was asked for when nobody wants it any more."""
    go = asyncio.Event()
    boxes = Boxes(creating=[lambda: deaf(later(go))])
    async with pooled(boxes) as pool:
        async with pool.open():
            assert now(pool)["creating"] == 1, "it may still come"
            go.set()
            await until(lambda: boxes.created == 2 and len(boxes.held) == 1)


async def later(event: asyncio.Event) -> None:
    await event.wait()


@pytest.mark.parametrize("stage", ["queue", "schedule", "start", "quota"])
async def test_what_may_pass_is_tried_again(stage: str) -> None:
    errors = [failing(CreateError(stage, "busy")), failing(TransportError("cut off"))]
    async with pooled(Boxes(creating=errors), retries=2) as pool, pool.open():
        assert failed(pool) == {stage: 1, "transport": 1}


@pytest.mark.parametrize("stage", ["image", "permission"])
async def test_what_cannot_pass_is_not_tried_again(stage: str) -> None:
    boxes = Boxes(creating=[failing(CreateError(stage, "no"))])
    async with pooled(boxes, retries=2) as pool:
        with pytest.raises(CreateError) as error:
            await pool.create(BoxSpec())
        assert (error.value.stage, boxes.created) == (stage, 0)


async def test_tries_come_to_an_end() -> None:
    boxes = Boxes(creating=[failing(CreateError("start", str(n))) for n in range(9)])
    async with pooled(boxes, retries=2) as pool:
        with pytest.raises(CreateError, match="start: 2"):
            await pool.create(BoxSpec())
        assert failed(pool) == {"start": 3}


async def test_an_exception_of_a_library_is_an_infrastructure_failure() -> None:
    async with pooled(Boxes(creating=[failing(ZeroDivisionError("oops"))])) as pool:
        with pytest.raises(SandboxError, match="create: ZeroDivisionError: oops"):
            await pool.create(BoxSpec())


async def test_a_box_that_takes_no_commands_is_no_box() -> None:
    class Mute(Boxes):
        async def create(self, spec: BoxSpec) -> FakeBox:
            box = await super().create(spec)
            if self.created < 3:
                box.alive = hang if self.created == 1 else no  # type: ignore[assignment,method-assign]
            return box

    async def no() -> bool:
        return False

    async with pooled(Mute()) as pool, pool.open() as box:
        assert box.name == "box-3"  # type: ignore[attr-defined]
        assert failed(pool) == {"ready": 2}


async def test_so_many_are_made_at_once_and_no_more_exist_than_there_are_places() -> None:
    boxes = Boxes(creating=[turns_of(n % 7) for n in range(40)])

    async def use(pool: Pool, number: int) -> None:
        async with pool.open() as box:
            await box.exec([str(number)])
            await turns(50)

    async with pooled(boxes, places=5, creating=2, spare=2) as pool:
        await asyncio.gather(*(use(pool, number) for number in range(40)))
    assert (boxes.most, boxes.most_making) == (5, 2)


async def test_who_waits_in_vain_is_told_where_it_fails() -> None:
    async with pooled(Boxes(), places=1, queue_s=0.02) as pool, pool.open():
        with pytest.raises(CreateError) as error:
            await pool.create(BoxSpec())
        assert error.value.stage == "queue"
        assert "sandbox.pool.places" in str(error.value)


async def test_spare_boxes_make_room_for_boxes_of_another_kind() -> None:
    boxes = Boxes()
    async with pooled(boxes, places=2, spare=2) as pool:
        await until(lambda: now(pool)["spare"] == 2)
        async with pool.open(BoxSpec(image="other")) as one:
            async with pool.open(BoxSpec(image="other")) as two:
                assert {box.spec.image for box in boxes.held.values()} == {"other"}
                assert one is not two


async def test_who_waits_is_served_in_order() -> None:
    order: list[int] = []

    async def use(pool: Pool, number: int) -> None:
        async with pool.open():
            order.append(number)

    async with pooled(Boxes(), places=1, spare=1) as pool:
        await asyncio.gather(*(use(pool, number) for number in range(6)))
    assert order == sorted(order)


async def test_what_was_given_to_someone_who_has_left_is_given_to_the_next() -> None:
    stock = Stock(places=1, turns=1, late=())
    box = FakeBox("box", Boxes(), BoxSpec())
    first, second = stock.ask("a"), stock.ask("a")
    stock.serve()
    assert first.result() is None and not second.done()
    stock.withdraw(first)
    stock.serve()
    assert second.result() is None and stock.making == 1
    stock.making -= 1
    slot = Slot(box=box, kind="a", made=0.0)
    stock.shelve(slot)
    third = stock.ask("a")
    stock.serve()
    assert third.result() is slot and stock.leased == {slot}
    stock.withdraw(third)
    assert stock.ready == [slot] and not stock.leased
    fourth = stock.ask("a")
    stock.serve()
    stock.withhold(slot)
    stock.withdraw(fourth)
    assert not stock.ready, "a box that is being removed stays away"


# --- removing boxes ------------------------------------------------------------------------------


async def test_a_close_that_fails_or_hangs_is_tried_again() -> None:
    boxes = Boxes(closing=[failing(TransportError("cut off")), hang])
    async with pooled(boxes, retries=2) as pool:
        box = await pool.create(BoxSpec())
        await box.close()
        assert not boxes.held and failed(pool) == {"close": 2}


async def test_a_close_that_never_succeeds_is_swept_up_at_the_end() -> None:
    boxes = Boxes(closing=[hang, hang])
    async with pooled(boxes, retries=1) as pool:
        box = await pool.create(BoxSpec())
        await box.close()
        assert len(boxes.held) == 1 and now(pool)["closing"] == 0


async def test_boxes_that_may_be_left_are_told_with_what_removes_them() -> None:
    class Stuck(Boxes):
        async def remove(self, name: str) -> None:
            raise TransportError("cut off")

    boxes = Stuck(closing=[hang])
    pool = Pool(boxes, PoolConfig(spare=0, close_s=0.02, retries=0), places=1)  # type: ignore[arg-type]
    with pytest.raises(SandboxError, match="palestra sandbox reap --label pool=") as error:
        async with pool, pool.open():
            pass
    assert pool.labels["pool"] in str(error.value)


async def test_leaving_the_block_does_not_wait_for_the_close() -> None:
    go = asyncio.Event()
    async with pooled(Boxes(closing=[lambda: later(go)]), close_s=5.0) as pool:
        async with pool.open():
            pass
        assert now(pool)["closing"] == 1
        go.set()


async def test_nothing_is_given_out_before_and_after() -> None:
    async with pooled(Boxes()) as pool:
        pass
    for closed in (pool, Pool(Boxes(), PoolConfig(), places=1)):  # type: ignore[arg-type]
        with pytest.raises(PoolStopped):
            await closed.create(BoxSpec())


# --- the breaker ---------------------------------------------------------------------------------


async def test_failures_in_a_row_end_the_pool() -> None:
    """Whoever has a box or waits for one loses it: an infrastructure failure, not a reward."""
    boxes = Boxes(
        creating=[turns_of(1), *(failing(CreateError("image", "gone")) for _ in range(9))]
    )
    with pytest.raises(PoolStopped, match=r"3 boxes in a row could not be made.*image: gone"):
        async with pooled(boxes, failures=3) as pool, pool.open() as mine:
            for _ in range(3):
                with pytest.raises(CreateError, match="image"):
                    await pool.create(BoxSpec())
            with pytest.raises(PoolStopped):
                await pool.create(BoxSpec())
            await until(lambda: not boxes.held)
            with pytest.raises(BoxDied):
                await mine.exec(["true"])


async def test_spare_boxes_that_cannot_be_made_end_nothing_and_are_not_tried_all_the_time() -> None:
    tries = itertools.count()

    def fail() -> Awaitable[None]:
        next(tries)
        return failing(CreateError("image", "gone"))()

    with pytest.raises(PoolStopped, match="1 boxes in a row"):
        async with pooled(Boxes(creating=[fail] * 1000), failures=1, spare=2) as pool:
            await turns(2000)
            assert next(tries) < 100
            with pytest.raises(CreateError, match="image"):
                await pool.create(BoxSpec())


async def test_a_run_that_is_stopped_is_not_told_of_the_breaker() -> None:
    boxes = Boxes(creating=[failing(CreateError("image", "gone"))])

    async def work() -> None:
        async with pooled(boxes, failures=1) as pool:
            with pytest.raises(CreateError):
                await pool.create(BoxSpec())
            await hang()

    working = asyncio.create_task(work())
    await turns(50)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working


def test_the_breaker_trips_at_three_polls_in_a_row_above_half_as_many_again() -> None:
    breaker = Breaker(planned=4, failures=9)
    for alive in (7, 7, 6, 7, 7):
        breaker.counted(alive)
        assert breaker.problem == ""
    breaker.counted(7)
    assert breaker.problem == "7 boxes exist, 4 were planned"


def test_a_box_that_was_made_forgives_the_failures_before() -> None:
    breaker = Breaker(planned=4, failures=2)
    for _ in range(3):
        breaker.failed(CreateError("start", "no"))
        breaker.made()
    assert breaker.problem == ""
    breaker.failed(CreateError("start", "no"))
    breaker.failed(CreateError("start", "no"))
    assert "2 boxes in a row" in breaker.problem


# --- all of it at once, cut off anywhere ---------------------------------------------------------

STEPS: Mapping[str, Callable[[], Awaitable[None]]] = {
    "at once": turns_of(0),
    "soon": turns_of(5),
    "busy": failing(CreateError("schedule", "busy")),
    "never": failing(CreateError("image", "gone")),
    "oops": failing(OSError("oops")),
    "hangs": hang,
    "deaf": lambda: deaf(turns(40)),
}
steps = st.lists(st.sampled_from(sorted(STEPS)), max_size=12)


@settings(max_examples=60)
@given(
    creating=steps,
    closing=steps,
    users=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 30)), min_size=1, max_size=8),
    places=st.integers(1, 4),
    spare=st.integers(0, 3),
    end=st.integers(0, 120),
)
def test_whenever_it_is_cut_off_nothing_is_left_and_no_box_has_two_users(
    creating: list[str],
    closing: list[str],
    users: list[tuple[int, int]],
    places: int,
    spare: int,
    end: int,
) -> None:
    """``users`` come after so many turns and are cancelled after so many more; the whole pool is
    cancelled after ``end``."""
    boxes = Boxes([STEPS[name] for name in creating], [STEPS[name] for name in closing])
    used: dict[str, set[int]] = {}

    async def use(pool: Pool, number: int, begin: int) -> None:
        await turns(begin)
        async with pool.open() as box:
            used.setdefault(box.name, set()).add(number)  # type: ignore[attr-defined]
            await box.exec([str(number)])
            await turns(3)

    async def run() -> None:
        async with pooled(
            boxes, places=places, spare=spare, create_s=0.01, close_s=0.02, failures=99
        ) as pool:
            using = [
                asyncio.create_task(use(pool, number, begin))
                for number, (begin, _) in enumerate(users)
            ]
            using += [
                asyncio.create_task(cancel(task, begin + length))
                for task, (begin, length) in zip(using, users, strict=True)
            ]
            try:
                await asyncio.gather(*using, return_exceptions=True)
            finally:
                for task in using:
                    task.cancel()
                await asyncio.wait(using)
                assert now(pool)["leased"] == now(pool)["waiting"] == 0

    async def cut_off() -> None:
        running = asyncio.create_task(run())
        await turns(end)
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled() or running.exception() is None

    asyncio.run(cut_off())
    assert all(len(numbers) == 1 for numbers in used.values())
    assert not boxes.held
    if {*creating, *closing} <= {"at once", "soon", "busy"}:
        assert boxes.most <= places


async def cancel(task: asyncio.Task[None], after: int) -> None:
    await turns(after)
    task.cancel()
