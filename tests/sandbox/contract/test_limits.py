"""Limits: memory, processes and disk of one box; reaching one is the agent's affair, not ours."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from palestra.rl.errors import BoxDied
from palestra.sandbox.base import Backend, Box, BoxSpec
from palestra.sandbox.limits import Limits

Until = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]
Survivors = Callable[[], Awaitable[bool]]

SMALL = Limits(memory=128 << 20, pids=40, files=16 << 20, tmp=24 << 20)


async def test_out_of_memory_is_told(backend: Backend, spec: Callable[..., BoxSpec]) -> None:
    async with backend.open(spec(limits=SMALL)) as box:
        await box.write("mark", b"1")
        assert not (await box.exec(["python3", "-c", "raise SystemExit(1)"])).oom
        ended = await box.exec(["python3", "-c", "print(len(b'x' * (300 << 20)))"], timeout=60)
        assert ended.exit_code != 0 and ended.stdout == b"" and not ended.timed_out
        if "memory" in backend.guarantees:
            assert ended.oom
        await _same_box(box)


async def test_memory_of_many_processes_is_bounded(
    backend: Backend, spec: Callable[..., BoxSpec]
) -> None:
    """Six that hold 40 MiB each: whichever of them the kernel ends, all at once they never live."""
    code = (
        "import os\ntold, tell = os.pipe()\nfor _ in range(6):\n    if os.fork() == 0:\n"
        "        held = b'x' * (40 << 20)\n        os.write(tell, b'1')\n        os.close(tell)\n"
        "        __import__('time').sleep(300)\nos.close(tell)\n"
        "reports = b''.join(iter(lambda: os.read(told, 6), b''))\n"
        "if len(reports) == 6 and os.waitpid(-1, os.WNOHANG)[0] == 0:\n    print('all hold')\n"
    )
    async with backend.open(spec(limits=SMALL)) as box:
        ended = await box.exec(["python3", "-c", code], timeout=60)
    bounded = "memory" in backend.guarantees
    # Otherwise each process has a limit of its own, which none of them reaches.
    assert (ended.oom, b"all hold" in ended.stdout) == (bounded, not bounded)


async def test_the_number_of_processes_is_bounded(
    backend: Backend,
    spec: Callable[..., BoxSpec],
    marker: str,
    until: Until,
    survivors: Survivors,
) -> None:
    code = (
        "import os\nmade = 0\ntry:\n    for _ in range(200):\n"
        f"        if os.fork() == 0:\n            os.execvp('sleep', ['sleep', '{marker}'])\n"
        "        made += 1\nexcept OSError:\n    pass\nprint(made)\n"
    )
    async with backend.open(spec(limits=SMALL)) as box:
        ended = await box.exec(["python3", "-c", code], timeout=60)
        made = int(ended.stdout)
        assert 0 < made < SMALL.pids if "pids" in backend.guarantees else made == 200
        assert (await box.exec(["echo", "here"])).stdout == b"here\n"
    await until(lambda: _not(survivors))


async def test_a_real_fork_bomb_ends_with_its_deadline(
    backend: Backend, spec: Callable[..., BoxSpec]
) -> None:
    if "pids" not in backend.guarantees:
        # Nothing would stop it but the machine; that the tree ends is shown above.
        assert "kill_tree" in backend.guarantees
        return
    async with backend.open(spec(limits=SMALL)) as box:
        await box.write("mark", b"1")
        ended = await box.exec(["bash", "-c", "f() { f | f & }; f; sleep 300"], timeout=2)
        assert ended.exit_code != 0
        await _same_box(box)


async def test_one_file_is_bounded(backend: Backend, spec: Callable[..., BoxSpec]) -> None:
    async with backend.open(spec(limits=SMALL)) as box:
        for folder in (".", "$TMPDIR"):
            ended = await box.exec(f"head -c 40000000 /dev/zero > {folder}/big", timeout=60)
            assert ended.exit_code != 0 or ended.signal
            ended = await box.exec(f"wc -c < {folder}/big || echo 0")
            assert int(ended.stdout) <= SMALL.files
        assert (await box.exec("echo small > f && cat f")).stdout == b"small\n"


async def test_a_full_disk_is_told_to_the_command(
    backend: Backend, spec: Callable[..., BoxSpec]
) -> None:
    script = "cd {0}; for i in 1 2 3 4 5 6 7 8; do head -c 8000000 /dev/zero > f$i || exit 28; done"
    async with backend.open(spec(limits=SMALL)) as box:
        for promise, folder in (("tmp", "$TMPDIR"), ("disk", ".")):
            ended = await box.exec(script.format(folder), timeout=60)
            bounded = promise in backend.guarantees
            assert ended.oom or ended.exit_code == (28 if bounded else 0), (promise, ended)
            assert not bounded or ended.oom or b"No space left" in ended.stderr
            await box.exec(f"rm -f {folder}/f*")


async def test_shared_memory_is_bounded(backend: Backend, spec: Callable[..., BoxSpec]) -> None:
    async with backend.open(spec(limits=SMALL)) as box:
        ended = await box.exec("head -c 400000000 /dev/zero > /dev/shm/x", timeout=60)
        assert ended.exit_code != 0


async def _same_box(box: Box) -> None:
    """Never a blank one: either it is the same, or it says that it died of the agent's doing."""
    try:
        assert (await box.exec(["cat", "mark"])).stdout == b"1"
    except BoxDied as died:
        assert died.by_agent


async def _not(condition: Survivors) -> bool:
    return not await condition()
