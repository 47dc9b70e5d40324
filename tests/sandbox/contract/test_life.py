"""Lives of boxes: made once, found again, removed by whoever must, never left behind."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import pytest

from palestra.rl.errors import BoxDied, PathRefused, SandboxError, UserError
from palestra.sandbox.base import Backend, Box, BoxSpec, CreateError, reap

Until = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]
Survivors = Callable[[], Awaitable[bool]]
Spec = Callable[..., BoxSpec]

DRIVER = """
import asyncio, json, sys
from palestra.sandbox.auto import make
from palestra.sandbox.base import BoxSpec

async def main(name, options, labels, marker):
    backend = make(name, **options)
    boxes = [await backend.create(BoxSpec(labels=labels)) for _ in range(5)]
    line = f"touch started; setsid sleep {marker} & sleep {marker}"
    running = [asyncio.create_task(box.exec(line, timeout=300)) for box in boxes]
    for box in boxes:
        while "started" not in await box.get():
            await asyncio.sleep(0.02)
    print("ready", flush=True)
    await asyncio.gather(*running)

asyncio.run(main(*json.loads(sys.argv[1])))
"""


async def test_boxes_are_found_by_their_labels(backend: Backend, spec: Spec, labels: dict) -> None:
    async with backend.open(spec()) as one, backend.open(spec(labels={**labels, "n": "2"})) as two:
        assert one.name != two.name and await one.alive()
        found = {box.name: box for box in await backend.list(labels)}
        assert set(found) == {one.name, two.name}
        assert [box.name for box in await backend.list({**labels, "n": "2"})] == [two.name]
        assert found[two.name].labels["n"] == "2"
        assert all(box.owner_alive and not box.expired for box in found.values())
        assert all(0 <= box.age_s < 600 for box in found.values())


async def test_closing_twice_and_removing_what_is_gone_are_harmless(
    backend: Backend, spec: Spec
) -> None:
    box = await backend.create(spec())
    await asyncio.gather(box.close(), box.close())
    await box.close()
    await backend.remove(box.name)
    await backend.remove("palestra-never-was")
    assert not await box.alive()


async def test_a_missing_image_is_told_as_that(backend: Backend, spec: Spec) -> None:
    with pytest.raises(CreateError) as error:
        await backend.create(spec(image="palestra-no-such-image:0"))
    assert error.value.stage == "image"


async def test_a_key_adopts(backend: Backend, spec: Spec, labels: dict) -> None:
    key = f"k-{secrets.token_hex(4)}"
    first = await backend.create(spec(key=key))
    await first.write("kept", b"1")
    second = await backend.create(spec(key=key))
    assert second.name == first.name and await second.read("kept") == b"1"
    assert (await second.exec(["cat", "kept"])).stdout == b"1"
    assert len(await backend.list(labels)) == 1
    await second.close()
    assert not await first.alive()
    async with backend.open(spec(key=key)) as third:
        assert await third.get() == {}
        await first.close()
        assert await third.alive(), "a closed box does not take a later one of its name along"


async def test_one_key_at_the_same_time_is_one_box(
    backend: Backend, spec: Spec, labels: dict
) -> None:
    key = f"k-{secrets.token_hex(4)}"
    boxes = await asyncio.gather(*(backend.create(spec(key=key)) for _ in range(4)))
    assert len({box.name for box in boxes}) == 1 == len(await backend.list(labels))
    await asyncio.gather(*(box.close() for box in boxes))


async def test_keys_that_cannot_be_names_are_refused(backend: Backend, spec: Spec) -> None:
    for key in ("../x", "A", "a b", "-a", "a" * 41):
        with pytest.raises(UserError):
            await backend.create(spec(key=key))


@pytest.mark.parametrize("delay", [0, 0.003, 0.03, 0.3])
async def test_cancelled_while_it_is_made_a_box_leaves_nothing(
    backend: Backend, spec: Spec, delay: float
) -> None:
    """The rule that nothing is left is checked after every case."""
    making = asyncio.create_task(backend.create(spec()))
    await asyncio.sleep(delay)
    making.cancel()
    [made] = await asyncio.gather(making, return_exceptions=True)
    if isinstance(made, BaseException):
        assert isinstance(made, asyncio.CancelledError)
    else:
        await made.close()


async def test_cancelled_while_it_runs_a_command_leaves_nothing(
    backend: Backend, spec: Spec, marker: str, until: Until, survivors: Survivors
) -> None:
    async def use() -> None:
        async with backend.open(spec()) as box:
            opened.set_result(box)
            line = f"touch started; setsid sleep {marker} & sleep {marker}"
            await box.exec(line, timeout=300)

    opened: asyncio.Future[Box] = asyncio.get_running_loop().create_future()
    using = asyncio.create_task(use())
    box = await opened
    await until(lambda: _started(box))
    using.cancel()
    with pytest.raises(asyncio.CancelledError):
        await using
    await until(lambda: _not(survivors))


async def test_a_cancelled_command_ends_and_the_box_goes_on(
    box: Box, marker: str, until: Until, survivors: Survivors
) -> None:
    running = asyncio.create_task(box.exec(f"touch started; sleep {marker}", timeout=300))
    await until(lambda: _started(box))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await until(lambda: _not(survivors))
    assert (await box.exec(["echo", "here"])).stdout == b"here\n"


async def test_an_error_in_the_block_closes_the_box(backend: Backend, spec: Spec) -> None:
    with pytest.raises(ZeroDivisionError):
        async with backend.open(spec()) as box:
            raise ZeroDivisionError
    assert not await box.alive()


async def test_a_box_that_dies_in_the_middle_is_no_result(
    backend: Backend, spec: Spec, until: Until
) -> None:
    box = await backend.create(spec())
    running = asyncio.create_task(box.exec("touch started; sleep 300", timeout=300))
    await until(lambda: _started(box))
    await backend.remove(box.name)
    with pytest.raises(BoxDied) as died:
        await running
    assert not died.value.by_agent
    assert not await box.alive()
    with pytest.raises(BoxDied):
        await box.exec(["true"])
    await box.close()


async def test_the_time_to_live_ends_a_box(
    backend: Backend, spec: Spec, labels: dict, until: Until
) -> None:
    box = await backend.create(spec(ttl=2.0))
    with pytest.raises(SandboxError):
        await box.exec(["sleep", "300"], timeout=300)
    assert not await box.alive()
    await until(lambda: _expired_or_gone(backend, labels))
    await reap(backend, labels)
    assert await backend.list(labels) == []
    await box.close()


async def test_reaping_spares_the_boxes_of_the_living(
    backend: Backend, spec: Spec, labels: dict
) -> None:
    async with backend.open(spec()) as one, backend.open(spec(labels={**labels, "n": "2"})) as two:
        assert await reap(backend, labels) == []
        assert await reap(backend, labels, older_s=600) == []
        assert await reap(backend, {**labels, "n": "2"}, older_s=0) == [two.name]
        assert (await one.alive(), await two.alive()) == (True, False)


async def test_a_killed_driver_leaves_nothing_that_is_not_reaped(
    *,
    named: str,
    options: Mapping[str, str],
    root: Path,
    backend: Backend,
    spec: Spec,
    labels: dict,
    marker: str,
    until: Until,
    survivors: Survivors,
) -> None:
    given = json.dumps([named, dict(options), labels, marker])
    async with backend.open(spec()) as ours:
        driver = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", DRIVER, given),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "TMPDIR": str(root)},
        )
        assert driver.stdout and await driver.stdout.readline() == b"ready\n"
        assert len(await backend.list(labels)) == 6
        assert await reap(backend, labels) == []
        driver.kill()
        await driver.wait()
        assert len(await reap(backend, labels)) == 5
        assert [box.name for box in await backend.list(labels)] == [ours.name]
        assert await ours.alive()
    await until(lambda: _not(survivors))


async def test_twenty_boxes_at_once(backend: Backend, spec: Spec) -> None:
    async def one(number: int) -> bytes:
        async with backend.open(spec()) as box:
            await box.write("n", str(number).encode())
            return (await box.exec(["cat", "n"], timeout=120)).stdout

    found = await asyncio.gather(*map(one, range(20)))
    assert found == [str(number).encode() for number in range(20)]


async def test_many_cycles_leak_nothing(backend: Backend, spec: Spec, until: Until) -> None:
    async def cycle() -> None:
        async with backend.open(spec()) as box:
            assert (await box.exec(["true"], timeout=60)).exit_code == 0

    await cycle()
    before = _held()
    for _ in range(10 if backend.name == "kubernetes" else 50):  # a Pod takes seconds
        await cycle()
    await until(lambda: _holds(before))


async def _holds(least: tuple[int, int]) -> bool:
    return all(now <= then for now, then in zip(_held(), least, strict=True))


def _held() -> tuple[int, int]:
    """Descriptors and children of this process."""
    children = sum(
        len(path.read_text().split()) for path in Path("/proc/self/task").glob("*/children")
    )
    return len(list(Path("/proc/self/fd").iterdir())), children


async def _started(box: Box) -> bool:
    try:
        return await box.read("started") == b""
    except PathRefused:
        return False


async def _expired_or_gone(backend: Backend, labels: Mapping[str, str]) -> bool:
    return all(box.expired for box in await backend.list(labels))


async def _not(condition: Survivors) -> bool:
    return not await condition()
