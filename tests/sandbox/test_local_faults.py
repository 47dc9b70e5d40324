"""What goes wrong around a command of a box of this machine, and what must not be left of it."""

from __future__ import annotations

import asyncio
import os
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from palestra.rl.errors import PathRefused, SandboxError
from palestra.sandbox import keeper, local, workspace
from palestra.sandbox.base import Box, reap
from palestra.sandbox.keeper import LocalKeeper, destroy
from palestra.sandbox.landlock import Landlock
from palestra.sandbox.local import LocalBox
from palestra.sandbox.local_backend import LocalBackend
from palestra.sandbox.owner import Owner

MARKER = f"301.{os.getpid():07}"
"""Seconds that no other process of this machine sleeps."""

# SIGTERM for the launcher when it has just forked, or has just waited for the command itself.
AFTER_FORK = """
import os, signal
def fork(real=os.fork):
    child = real()
    if child:
        os.kill(os.getpid(), signal.SIGTERM)
    return child
os.fork = fork
"""
AFTER_WAIT = """
import os, signal
def waitpid(pid, options, real=os.waitpid):
    found = real(pid, options)
    if pid > 0:
        os.kill(os.getpid(), signal.SIGTERM)
    return found
os.waitpid = waitpid
"""
WITHOUT_DRIVER = """
import os
os.getppid = lambda: 1
"""


def test_running_out_of_descriptors_is_our_fault_and_costs_none(provider: LocalBackend) -> None:
    async def run() -> None:
        async with provider.open() as box:
            assert isinstance(box, LocalBox)
            before, limits = _descriptors(), resource.getrlimit(resource.RLIMIT_NOFILE)
            refused = 0
            for more in range(40):
                resource.setrlimit(resource.RLIMIT_NOFILE, (_lowest(before) + more, limits[1]))
                try:
                    ended = await box.exec(["echo", "here"], timeout=60)
                    break
                except SandboxError:
                    refused += 1
                finally:
                    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
                assert _descriptors() == before and not box._running
            assert refused > 8 and ended.stdout == b"here\n"
            assert _descriptors() == before

    asyncio.run(run())
    _all_asleep_end()


def test_cancelled_twice_a_command_leaves_no_descriptor(provider: LocalBackend) -> None:
    async def run() -> None:
        async with provider.open() as box:
            assert isinstance(box, LocalBox)
            before = _descriptors()
            task = asyncio.create_task(box.exec(f"touch on; sleep {MARKER}", timeout=60))
            while "on" not in await box.get():
                pass
            task.cancel()
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled() and not box._running
            assert _descriptors() == before

    asyncio.run(run())
    _all_asleep_end()


def test_closing_ends_commands_although_somebody_removed_the_box(
    provider: LocalBackend, without_groups: None
) -> None:
    async def run() -> None:
        box = await provider.create(local.BoxSpec())
        task = asyncio.create_task(box.exec(f"touch on; sleep {MARKER}", timeout=60))
        while "on" not in await box.get():
            pass
        destroy(provider.root, box.name)
        await box.close()
        with pytest.raises(SandboxError):
            async with asyncio.timeout(30):
                await task

    asyncio.run(run())
    _all_asleep_end()


@pytest.mark.parametrize(("count", "size"), [(500, 1), (2, 8 << 20)])
def test_other_boxes_do_not_wait_for_large_trees(
    provider: LocalBackend, count: int, size: int
) -> None:
    async def run() -> None:
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        async with provider.open() as box:
            task = asyncio.create_task(others())
            files = {f"d/{number}": b"x" * size for number in range(count)}
            await box.put(files)
            assert turns > 0
            task.cancel()
            with pytest.raises(PathRefused):
                await box.put({**files, "../x": b""})
            assert await box.get() == files

    asyncio.run(run())


def test_a_box_that_cannot_be_removed_keeps_no_other_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = replace(Owner.me(), started=1)
    for name in ("palestra-a", "palestra-b", "palestra-c"):
        made = replace(workspace.Record.fresh({}, ttl=60), owner=dead)
        workspace.create(tmp_path, name, made)
    first = next(name for name, _ in workspace.records(tmp_path))
    monkeypatch.setattr(keeper, "remove_groups", partial(_stuck, first))
    with pytest.raises(SandboxError, match=r"1 of 3 not removed: .* do not die"):
        asyncio.run(reap(LocalKeeper(tmp_path), {}))
    assert keeper.reap(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == [first]
    monkeypatch.undo()
    assert keeper.reap(tmp_path) == [first]


def _stuck(stuck: str, name: str) -> None:
    if name == stuck:
        raise SandboxError(f"processes of {name} do not die")


@pytest.mark.parametrize("at", [AFTER_FORK, AFTER_WAIT])
def test_a_launcher_that_is_ended_at_any_moment_leaves_nothing(
    landlock: Callable[[str], Landlock], without_groups: None, at: str
) -> None:
    async def use(box: Box) -> None:
        try:
            ended = await box.exec(f"setsid sleep {MARKER} & exit 3", timeout=60)
            assert at != AFTER_WAIT or ended.exit_code == 3
        except SandboxError:
            assert at == AFTER_FORK

    _used(landlock(at), use)
    _all_asleep_end()


def test_a_launcher_whose_driver_is_gone_runs_nothing(landlock: Callable[[str], Landlock]) -> None:
    async def use(box: Box) -> None:
        with pytest.raises(SandboxError):
            await box.exec("touch ran", timeout=60)
        assert await box.get() == {}

    _used(landlock(WITHOUT_DRIVER), use)


def test_landlock_without_truncation_does_not_promise_files(
    landlock: Callable[[str], Landlock], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "fs" in landlock("").guarantees
    monkeypatch.setattr("palestra.sandbox.landlock._abi", lambda: 2)
    assert "fs" not in landlock("").guarantees


@pytest.fixture
def landlock(tmp_path: Path) -> Callable[[str], Landlock]:
    """Boxes whose launcher runs some code of a test first."""

    def made(before: str) -> Landlock:
        try:
            found = Landlock(root=tmp_path)
        except SandboxError as error:
            (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(str(error))
        future = "from __future__ import annotations\n"
        found._launcher = found._launcher.replace(future, future + before)
        return found

    return made


@pytest.fixture
def without_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Boxes without cgroups: only their driver can end what runs in them."""
    monkeypatch.setattr(local, "Cgroup", lambda name, limits: NoGroups())


class NoGroups:
    entries: list[str] = []
    members: list[int] = []
    oom_kills = 0


def _used(backend: LocalBackend, use: Callable[[Box], object]) -> None:
    async def run() -> None:
        async with backend.open() as box:
            await use(box)  # type: ignore[misc]

    asyncio.run(run())


def _descriptors() -> set[int]:
    return set(filter(_is_open, range(512)))


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _lowest(taken: set[int]) -> int:
    return next(number for number in range(512) if number not in taken)


def _all_asleep_end() -> None:
    """What dies with a namespace does so a moment after its first process."""
    deadline = time.monotonic() + 30
    while any(MARKER in line for line in _command_lines()):
        assert time.monotonic() < deadline, "a command was left behind"
        time.sleep(0.01)


def _command_lines() -> Iterator[str]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                yield (entry / "cmdline").read_text(errors="replace")
            except OSError:
                continue
