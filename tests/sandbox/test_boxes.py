"""What is particular to the boxes of this machine; all else is in the contract of boxes."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from palestra.rl.errors import SandboxError, UserError
from palestra.rl.types import ExecResult
from palestra.sandbox import limits, local, workspace
from palestra.sandbox.auto import GRADING, choose, make, probe
from palestra.sandbox.base import Box, BoxSpec, CreateError
from palestra.sandbox.bubblewrap import Bubblewrap
from palestra.sandbox.capture import Capture
from palestra.sandbox.keeper import destroyed_at_once, reap
from palestra.sandbox.limits import Limits
from palestra.sandbox.local_backend import LocalBackend
from palestra.sandbox.owner import Owner
from palestra.sandbox.unsafe import UnsafeLocal

LEAVING = """
import asyncio, sys
from pathlib import Path
from palestra.sandbox.base import BoxSpec
from palestra.sandbox.unsafe import UnsafeLocal
asyncio.run(UnsafeLocal(root=Path(sys.argv[1])).create(BoxSpec()))
assert list(Path(sys.argv[1]).iterdir())
"""


def in_box(backend: LocalBackend, use: Callable[[Box], Awaitable[ExecResult]]) -> ExecResult:
    async def run() -> ExecResult:
        async with backend.open() as box:
            return await use(box)

    return asyncio.run(run())


def test_capture_of_small_pieces() -> None:
    capture = Capture(6)
    for piece in (b"ab", b"cd", b"ef", b"gh"):
        capture.feed(piece)
    assert (capture.kept, capture.elided) == (b"abcfgh", 2)


def record(owner: Owner, *, ttl: float = 60) -> workspace.Record:
    return replace(workspace.Record.fresh({}, ttl=ttl), owner=owner)


def test_removal_unlocks_folders_without_following_links(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o500)
    folder = workspace.create(tmp_path, "palestra-a", record(Owner.me()))
    (folder / "work" / "locked").mkdir()
    (folder / "work" / "locked" / "link").symlink_to(outside)
    (folder / "work" / "locked").chmod(0)
    workspace.remove(tmp_path, "palestra-a")
    assert list(tmp_path.iterdir()) == [outside]
    assert outside.stat().st_mode & 0o777 == 0o500


def test_an_owner_is_told_apart_from_a_later_process_of_its_number() -> None:
    me = Owner.me()
    assert me.alive and Owner.parse(str(me)) == me
    assert not replace(me, started=me.started - 1).alive
    assert replace(me, pid=1 << 30, host="elsewhere").alive


def test_a_zombie_owns_nothing() -> None:
    with subprocess.Popen(["true"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        assert fields[0] == "Z"
        assert not replace(Owner.me(), pid=child.pid, started=int(fields[19])).alive


def test_reap_removes_only_what_dead_drivers_left_and_what_expired(tmp_path: Path) -> None:
    me = Owner.me()
    workspace.create(tmp_path, "palestra-alive", record(me))
    workspace.create(tmp_path, "palestra-dead", record(replace(me, started=1)))
    workspace.create(tmp_path, "palestra-expired", record(me, ttl=0))
    workspace.create(tmp_path, "palestra-abroad", record(replace(me, started=1, host="other")))
    (tmp_path / "palestra-notes").mkdir()
    (tmp_path / "palestra-link").symlink_to(tmp_path / "palestra-dead")
    assert sorted(reap(tmp_path)) == ["palestra-dead", "palestra-expired"]
    left = ["palestra-abroad", "palestra-alive", "palestra-link", "palestra-notes"]
    assert sorted(path.name for path in tmp_path.iterdir()) == left


def test_a_box_that_is_being_removed_is_not_adopted(tmp_path: Path) -> None:
    workspace.create(tmp_path, "palestra-k", record(Owner.me()))
    workspace.condemn(tmp_path, "palestra-k")
    with pytest.raises(FileNotFoundError):
        workspace.take_over(tmp_path, "palestra-k", record(Owner.me()))
    assert reap(tmp_path) == ["palestra-k"]


def test_a_driver_that_forgets_its_boxes_leaves_nothing_at_its_end(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LEAVING, str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_before_a_box_is_made(provider: LocalBackend, tmp_path: Path) -> None:
    with pytest.raises(CreateError) as error:
        asyncio.run(provider.create(BoxSpec(limits=Limits(files=1 << 60))))
    assert error.value.stage == "quota" and list(tmp_path.iterdir()) == []


def test_a_command_waits_for_room_among_the_processes_of_its_box(provider: LocalBackend) -> None:
    """Short commands end faster than a busy kernel stops counting them."""
    if "pids" not in provider.guarantees:
        return
    full = "for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14; do sleep 1 & done; touch full; wait"

    async def run() -> ExecResult:
        async with provider.open(BoxSpec(limits=Limits(pids=18))) as box:
            running = asyncio.create_task(box.exec(full, timeout=60))
            while "full" not in await box.get():
                pass
            ended = await box.exec(["echo", "here"], timeout=60)
            await running
        return ended

    assert asyncio.run(run()).stdout == b"here\n"


def test_a_place_where_no_box_can_be_made_is_told(
    provider: LocalBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(local, "Cgroup", refused)
    with pytest.raises(CreateError) as error:
        asyncio.run(provider.create(BoxSpec()))
    assert error.value.stage == "permission" and list(tmp_path.iterdir()) == []


def test_a_box_that_does_not_start_is_an_infrastructure_fault(provider: LocalBackend) -> None:
    async def run() -> None:
        async with provider.open() as box:
            shutil.rmtree(box.folder)  # type: ignore[attr-defined]
            await box.exec(["true"])

    with pytest.raises(SandboxError):
        asyncio.run(run())


def test_without_a_memory_cgroup_each_process_is_bounded(
    provider: LocalBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "cgroup_guarantees", frozenset)
    monkeypatch.setattr(local, "Cgroup", lambda name, limits: NoGroups())
    code = "try:\n    b'x' * (300 << 20)\nexcept MemoryError:\n    print('bounded')"
    provider.limits = Limits(memory=200 << 20)
    ended = in_box(provider, lambda box: box.exec(["python3", "-c", code]))
    assert (ended.stdout, ended.oom) == (b"bounded\n", False)


class NoGroups:
    entries: list[str] = []
    oom_kills = 0


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"),
        ("memory.events", "low 0\nmax 7\noom 4\noom_kill 3\noom_group_kill 0\n"),
    ],
)
def test_both_versions_of_cgroups_count_what_they_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, text: str
) -> None:
    monkeypatch.setattr(limits, "_parents", lambda: {tmp_path: frozenset({file})})
    group = limits.Cgroup("palestra-a", Limits())
    assert group.oom_kills == 0
    (tmp_path / "palestra-a" / file).write_text(text)
    assert group.oom_kills == 3


@pytest.mark.parametrize(
    ("files", "entry"),
    [({"tasks", "cgroup.procs", "pids.max"}, "tasks"), ({"cgroup.procs"}, "cgroup.procs")],
)
def test_processes_join_groups_by_the_way_that_halts_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: set[str], entry: str
) -> None:
    monkeypatch.setattr(limits, "_parents", lambda: {tmp_path: frozenset(files)})
    group = limits.Cgroup("palestra-a", Limits(pids=7))
    assert group.entries == [str(tmp_path / "palestra-a" / entry)]
    written = {file.name: file.read_text() for file in (tmp_path / "palestra-a").iterdir()}
    assert written == ({"pids.max": "7"} if "pids.max" in files else {})


def test_every_process_of_a_box_is_in_its_groups(provider: LocalBackend) -> None:
    async def run() -> None:
        async with provider.open() as box:
            task = asyncio.create_task(box.exec("sleep 60 & sleep 60", timeout=60))
            groups = limits._groups(box.name)
            async with asyncio.timeout(30):
                while any(len(members(group)) < 3 for group in groups):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            assert not limits.groups_gone(box.name) and all(map(Path.exists, groups))
            task.cancel()
        assert not any(map(Path.exists, groups))

    asyncio.run(run())


def members(group: Path) -> list[str]:
    return (group / "cgroup.procs").read_text().split()


def test_only_an_empty_condemned_box_goes_at_once(tmp_path: Path) -> None:
    folder = workspace.create(tmp_path, "palestra-a", record(Owner.me()))
    assert workspace.condemn(tmp_path, "palestra-a")
    (folder / "work" / "file").touch()
    assert not destroyed_at_once(tmp_path, "palestra-a")
    found = workspace.find(tmp_path, "palestra-a")
    assert found is not None and found.expires == 0
    (folder / "work" / "file").unlink()
    assert destroyed_at_once(tmp_path, "palestra-a") and list(tmp_path.iterdir()) == []
    assert not workspace.condemn(tmp_path, "palestra-a")


def test_files_of_etc_in_bubblewrap_are_copies_that_nobody_can_change(tmp_path: Path) -> None:
    try:
        backend = Bubblewrap(root=tmp_path)
    except SandboxError as error:
        pytest.skip(str(error))
    line = (
        "cat /etc/passwd; stat -c %a /etc/passwd; ls /etc/shadow 2>/dev/null;"
        "( : >> /etc/passwd ) 2>/dev/null || echo refused; rm -f /etc/group; ls /etc/group"
    )
    ended = in_box(backend, lambda box: box.exec(line))
    text = Path("/etc/passwd").read_bytes()
    assert ended.stdout == text + b"644\nrefused\n/etc/group\n"


def test_a_user_namespace_serves_where_the_user_cannot_be_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("palestra.sandbox.bubblewrap._SETPRIV", str(tmp_path / "absent"))
    try:
        backend = Bubblewrap(root=tmp_path)
    except SandboxError as error:
        pytest.skip(str(error))
    assert "user" not in backend.guarantees and backend.guarantees >= GRADING
    line = ": > made; id -u; grep CapEff /proc/self/status; unshare -U true || echo refused"
    ended = in_box(backend, lambda box: box.exec(line))
    assert ended.stdout.split() == [str(os.getuid()).encode(), b"CapEff:", b"0" * 16, b"refused"]


def test_an_umask_of_ours_does_not_shut_boxes(provider: LocalBackend) -> None:
    before = os.umask(0o077)
    try:
        ended = in_box(provider, lambda box: box.exec(": > made && ls"))
        again = type(provider)(root=provider.root)
    finally:
        os.umask(before)
    assert ended.stdout == b"made\n" and again.guarantees == provider.guarantees


def test_bubblewrap_hides_how_it_was_started(tmp_path: Path) -> None:
    try:
        backend = Bubblewrap(root=tmp_path)
    except SandboxError as error:
        pytest.skip(str(error))
    line = "cat /proc/[0-9]*/cmdline"
    ended = in_box(backend, lambda box: box.exec(line, env={"GIVEN": "hunter2"}))
    assert b"bwrap" in ended.stdout
    assert b"hunter2" not in ended.stdout and str(tmp_path).encode() not in ended.stdout


def test_backends_are_found_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        make("vm")
    assert "bubblewrap" in str(error.value)
    found = probe("landlock", root=tmp_path)
    assert bool(found.guarantees) is (found.problem == "")


def test_choose_refuses_rather_than_running_unprotected(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        choose(frozenset({"time_travel"}), root=tmp_path)
    assert "time_travel" in str(error.value) and "--unsafe-local" in str(error.value)
    assert "\n" not in str(error.value)


def test_choose_gives_what_grading_needs(tmp_path: Path) -> None:
    try:
        assert choose(root=tmp_path).guarantees >= GRADING
    except UserError as error:
        pytest.skip(str(error))


def test_unsafe_local_says_so_at_every_start_and_works(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    for _ in range(2):
        backend = choose(unsafe_local=True, root=tmp_path)
        said = capsys.readouterr().err
        assert said.startswith("warning: --unsafe-local") and "nothing is protected" in said
    assert isinstance(backend, UnsafeLocal) and backend.guarantees == frozenset()
    assert b"SECRET" not in in_box(backend, lambda box: box.exec(["env"])).stdout
    assert in_box(backend, lambda box: box.exec("exit 4")).exit_code == 4
    assert in_box(backend, lambda box: box.exec("sleep 300", timeout=0.2)).timed_out

    async def whole() -> dict[str, bytes]:
        async with backend.open(BoxSpec(env={"GIVEN": "1"}, labels={"a": "b"})) as box:
            await box.put({"d/f": b"1"})
            await box.exec('echo "$GIVEN" >> d/f')
            assert [found.name for found in await backend.list({"a": "b"})] == [box.name]
            await box.freeze()
            assert not await box.alive()
            return await box.get()

    assert asyncio.run(whole()) == {"d/f": b"11\n"}
    assert list(tmp_path.iterdir()) == []
