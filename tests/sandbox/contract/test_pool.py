"""Pools of real boxes: what is kept ready, what is never handed out, what ends everything."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import pytest

from palestra.rl.errors import BoxDied, UserError
from palestra.rl.types import CallCheck, Task
from palestra.sandbox.base import Backend, Box, BoxSpec
from palestra.sandbox.breaker import PoolStopped
from palestra.sandbox.checks import make_grader
from palestra.sandbox.config import PoolConfig
from palestra.sandbox.pool import Pool
from palestra.sandbox.reset import Resets

Until = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]
Spec = Callable[..., BoxSpec]

POOLED = False
"""These cases make pools of their own."""

DRIVER = """
import asyncio, json, signal, sys
from palestra.sandbox.auto import make
from palestra.sandbox.base import BoxSpec
from palestra.sandbox.config import PoolConfig
from palestra.sandbox.pool import Pool

# A job in a shell's background ignores interrupts, and so do its children.
signal.signal(signal.SIGINT, signal.default_int_handler)

async def main(name, options, labels):
    config = PoolConfig(spare=2)
    async with Pool(make(name, **options), config, places=8, labels=labels) as pool:
        async with pool.open() as one, pool.open() as two:
            running = asyncio.create_task(one.exec("touch started; sleep 300", timeout=300))
            while "started" not in await one.get():
                await asyncio.sleep(0.02)
            print("ready", flush=True)
            await running

asyncio.run(main(*json.loads(sys.argv[1])))
"""


def pool_of(
    backend: Backend, spec: Spec, *, poll_s: float = 15.0, places: int = 8, **settings: object
) -> Pool:
    config = PoolConfig.model_validate({"spare": 2, **settings})
    return Pool(backend, config, places=places, kinds=[spec()], poll_s=poll_s)


async def ready(pool: Pool) -> bool:
    """Whether the spare boxes are there, and nothing goes on."""
    now = pool.metrics()
    busy = sum(now[f"sandbox/{name}"] for name in ("waiting", "creating", "closing"))
    return now["sandbox/spare"] >= 2 and not busy


async def counted(pool: Pool, name: str, count: int) -> bool:
    """Whether something has happened so often."""
    return pool.metrics()[f"sandbox/{name}"] >= count


async def started(box: Box) -> bool:
    """Whether the command ``touch started`` was run."""
    return "started" in await box.get()


async def test_a_spare_box_is_handed_out_once_and_replaced(
    backend: Backend, spec: Spec, labels: Mapping[str, str], until: Until
) -> None:
    used: list[str] = []
    async with pool_of(backend, spec) as pool:
        await until(lambda: ready(pool))
        for _ in range(3):
            spare = {found.name for found in await backend.list(labels)}
            async with pool.open() as box:
                assert box.name in spare
                assert await box.get() == {}
                await box.exec("echo mine > mine; echo mine > $TMPDIR/mine")
                used.append(box.name)
            with pytest.raises(BoxDied):
                await box.read("mine")
            await until(lambda: ready(pool))
    assert len(set(used)) == 3
    assert pool.metrics()["sandbox/leases"] == 3
    assert await backend.list(labels) == []


async def test_a_box_that_died_on_the_shelf_is_not_handed_out(
    backend: Backend, spec: Spec, labels: Mapping[str, str], until: Until
) -> None:
    async with pool_of(backend, spec) as pool:
        await until(lambda: ready(pool))
        for found in await backend.list(labels):
            await backend.remove(found.name)
        async with pool.open() as box:
            assert (await box.exec(["echo", "here"], timeout=60)).stdout == b"here\n"
    assert pool.metrics()["sandbox/dead"] == 2


async def test_the_watch_replaces_what_died_or_is_too_old(
    backend: Backend, spec: Spec, labels: Mapping[str, str], until: Until
) -> None:
    async with pool_of(backend, spec, poll_s=0.05, shelf_s=30.0) as pool:
        await until(lambda: ready(pool))
        for found in await backend.list(labels):
            await backend.remove(found.name)
        await until(lambda: counted(pool, "dead", 2))
        await until(lambda: ready(pool))
        assert pool.metrics()["sandbox/created"] == 4
    async with pool_of(backend, spec, poll_s=0.05, shelf_s=0.5) as pool:
        await until(lambda: counted(pool, "dead", 2))


async def test_boxes_that_nobody_planned_end_the_pool(
    backend: Backend, spec: Spec, labels: Mapping[str, str], until: Until
) -> None:
    """Three polls see four boxes where two were planned: all go, whoever made them."""
    with pytest.raises(PoolStopped, match="4 boxes exist, 2 were planned"):
        async with pool_of(backend, spec, poll_s=0.05, places=2) as pool:
            await until(lambda: ready(pool))
            strays = [await backend.create(spec(labels=pool.labels)) for _ in range(2)]
            with pytest.raises(PoolStopped):
                while True:
                    async with pool.open() as box:
                        await box.exec(["sleep", "0.05"], timeout=60)
            assert not any([await stray.alive() for stray in strays])
    assert await backend.list(pool.labels) == []


async def test_tearing_down_is_nobodys_failure(backend: Backend, spec: Spec, until: Until) -> None:
    """An agent whose box is taken away has done nothing wrong."""
    async with pool_of(backend, spec) as pool:
        box = await pool.create(spec())
        running = asyncio.create_task(box.exec("touch started; sleep 300", timeout=300))
        await until(lambda: started(box))
    with pytest.raises(BoxDied) as died:
        await running
    assert not died.value.by_agent
    await box.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
async def test_a_driver_that_is_ended_leaves_nothing(
    number: signal.Signals,
    *,
    named: str,
    options: Mapping[str, str],
    root: Path,
    backend: Backend,
    spec: Spec,
    until: Until,
) -> None:
    """Interrupted it cleans up itself; killed, its boxes are known for orphans, and reaped."""
    driver = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", DRIVER, json.dumps([named, dict(options), spec().labels])),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(root)},
    )
    assert driver.stdout and await driver.stdout.readline() == b"ready\n"
    driver.send_signal(number)
    await driver.wait()
    if number is signal.SIGINT:
        assert await backend.list(spec().labels) == []

    async def reaped() -> bool:
        """What was being made when the driver ended shows late."""
        found = await backend.list(spec().labels)
        for box in found:
            if not box.owner_alive:
                await backend.remove(box.name)
        return not found

    await until(reaped)


async def test_grading_takes_boxes_of_the_pool(backend: Backend, spec: Spec, until: Until) -> None:
    check = CallCheck(id="a", module="solution", function="f", args="(1,)", expected="2")
    task = Task(
        id="t", source="", kind="", prompt="", files={}, reference={}, hidden=(check,),
        artifacts=("solution.py",),
    )  # fmt: skip
    async with pool_of(backend, spec) as pool:
        grade = make_grader(pool)
        right = await grade(task, {"solution.py": b"def f(x):\n    return x + 1\n"})
        wrong = await grade(task, {"solution.py": b"def f(x):\n    return x\n"})
    assert (right.solved, wrong.solved) == (True, False)
    assert pool.metrics()["sandbox/leases"] == 2


# --- used boxes ----------------------------------------------------------------------------------

MESS = (
    "mkdir -p a/b/c .hidden; echo secret > a/b/c/f; ln -s /etc l; mkfifo p; chmod 0 a; chmod 0 .; "
    "echo secret > $TMPDIR/f; echo secret > /dev/shm/f; setsid setsid sleep 300 >/dev/null 2>&1 &"
)
# The shell itself counts the processes: commands of a pipeline may not have begun yet.
LOOK = "id -u; stat -c '%a %u %s %h' .; ls -lA . /tmp /dev/shm; set -- /proc/[0-9]*; echo $#"


async def test_only_a_box_that_cannot_be_told_from_a_fresh_one_is_used_again(
    backend: Backend, spec: Spec, until: Until
) -> None:
    if not isinstance(backend, Resets) or backend.cannot_reset():
        with pytest.raises(UserError, match=f"{backend.name} boxes cannot be used again"):
            pool_of(backend, spec, reuse=True)
        return
    names: set[str] = set()
    async with backend.open(spec()) as fresh:
        expected = (await fresh.exec(LOOK)).stdout
    async with pool_of(backend, spec, reuse=True) as pool:
        await until(lambda: ready(pool))
        for _ in range(6):
            async with pool.open() as box:
                assert (await box.exec(LOOK)).stdout == expected
                assert await box.get() == {}
                await box.exec(MESS)
                names.add(box.name)
            await until(lambda: ready(pool))
        metrics = pool.metrics()
    assert (metrics["sandbox/reused"], metrics["sandbox/drifted"]) == (6, 0)
    assert len(names) <= 3


async def test_what_is_left_of_a_use_ends_the_box(
    backend: Backend, spec: Spec, until: Until
) -> None:
    """Whatever makes a box look different from outside: a process, a file, a mode."""
    if not isinstance(backend, Resets) or backend.cannot_reset():
        return

    def process(box: Box) -> None:
        """Of ours, moved into the box, and unknown to it."""
        (entry, *_) = box._box.cgroup.entries  # type: ignore[attr-defined]
        Path(entry).write_text(str(sleeper.pid))

    def file(box: Box) -> None:
        (box._box.folder.parent / "extra").touch()  # type: ignore[attr-defined]

    sleeper = await asyncio.create_subprocess_exec("sleep", "300")
    names: list[str] = []
    async with pool_of(backend, spec, reuse=True) as pool:
        for change in (process, file):
            async with pool.open() as box:
                names.append(box.name)
                change(box)
            await until(lambda: ready(pool))
        assert not set(names) & {found.name for found in await backend.list(spec().labels)}
        metrics = pool.metrics()
    await sleeper.wait()
    assert (metrics["sandbox/reused"], metrics["sandbox/drifted"]) == (0, 2)


async def test_a_box_that_failed_is_not_used_again(
    backend: Backend, spec: Spec, until: Until
) -> None:
    if not isinstance(backend, Resets) or backend.cannot_reset():
        return
    async with pool_of(backend, spec, reuse=True) as pool:
        async with pool.open() as box:
            await box.freeze()  # type: ignore[attr-defined]
        await until(lambda: ready(pool))
    assert pool.metrics()["sandbox/reused"] == 0
