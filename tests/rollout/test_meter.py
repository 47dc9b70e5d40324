"""The meter, on a clock that a test moves."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palestra.rollout import meter as module
from palestra.rollout.meter import Meter


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_each_moment_goes_to_the_first_busy_lane(clock: Clock) -> None:
    meter = Meter()
    clock.now += 1  # nothing under way
    with meter.busy("environment"):
        clock.now += 2
        with meter.busy("generate"), meter.busy("grade"):
            clock.now += 4
        clock.now += 8
        with meter.busy("grade"):
            clock.now += 16
    clock.now += 32
    assert meter.read() == {"idle": 33.0, "environment": 10.0, "generate": 4.0, "grade": 16.0}


def test_the_order_of_priority(clock: Clock) -> None:
    meter = Meter()
    for first, second in zip(Meter.lanes, Meter.lanes[1:], strict=False):
        meter.restart()
        with meter.busy(second), meter.busy(first):
            clock.now += 1
        with meter.busy(first), meter.busy(second):
            clock.now += 1
        assert {lane: s for lane, s in meter.read().items() if s} == {first: 2.0}


def test_overlapping_work_on_one_lane_counts_once(clock: Clock) -> None:
    meter = Meter()

    async def episode(started: asyncio.Event, other: asyncio.Event) -> None:
        with meter.busy("generate"):
            clock.now += 1
            started.set()
            await other.wait()

    async def both() -> None:
        a, b = asyncio.Event(), asyncio.Event()
        await asyncio.gather(episode(a, b), episode(b, a))

    asyncio.run(both())
    clock.now += 5
    assert meter.read() == {"idle": 5.0, "generate": 2.0}


def test_work_that_fails_is_no_longer_under_way(clock: Clock) -> None:
    meter = Meter()
    with pytest.raises(KeyError), meter.busy("learn"):
        clock.now += 1
        raise KeyError
    clock.now += 2
    assert meter.read() == {"idle": 2.0, "learn": 1.0}


def test_restart_forgets_seconds_but_not_work(clock: Clock) -> None:
    meter = Meter()
    clock.now += 3
    with meter.busy("generate"):
        clock.now += 3
        meter.restart()
        clock.now += 1
        assert meter.read() == {"generate": 1.0}


@given(
    st.lists(
        st.tuples(st.sampled_from([*Meter.lanes, None]), st.integers(0, 9)), min_size=1, max_size=20
    )
)
def test_lanes_add_up_to_the_wall_time(moves: list[tuple[str | None, int]]) -> None:
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "time", clock)
        meter = Meter()
        under_way = []
        for lane, seconds in moves:
            if lane is None and under_way:
                under_way.pop(0).__exit__(None, None, None)
            elif lane is not None:
                under_way.append(meter.busy(lane))
                under_way[-1].__enter__()
            clock.now += seconds
        assert sum(meter.read().values()) == pytest.approx(clock.now - 100.0)
        for work in under_way:
            work.__exit__(None, None, None)
