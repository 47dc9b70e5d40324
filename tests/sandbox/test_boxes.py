"""The contract of a box, on every provider."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import socket
import time
from ast import literal_eval
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from palestra.rl.errors import PathRefused, SandboxError, UserError
from palestra.rl.types import ExecResult, Sandbox, SandboxProvider
from palestra.sandbox import workspace
from palestra.sandbox.auto import GRADING, choose
from palestra.sandbox.capture import Capture
from palestra.sandbox.keeper import reap
from palestra.sandbox.limits import Limits
from palestra.sandbox.owner import Owner
from palestra.sandbox.unsafe import UnsafeLocal


def in_box(provider: SandboxProvider, use: Callable[[Sandbox], Awaitable[object]]) -> object:
    async def run() -> object:
        async with provider.open() as box:
            return await use(box)

    return asyncio.run(run())


def python(provider: SandboxProvider, code: str, **options: object) -> ExecResult:
    def use(box: Sandbox) -> Awaitable[ExecResult]:
        return box.exec(["python3", "-c", code], **options)  # type: ignore[arg-type]

    result = in_box(provider, use)
    assert isinstance(result, ExecResult)
    return result


def running(marker: str) -> list[int]:
    """Processes whose command line holds ``marker``."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and marker in (entry / "cmdline").read_text():
                found.append(int(entry.name))
    return found


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_exit_signal_and_timeout_are_told_apart(provider: SandboxProvider) -> None:
    assert python(provider, "raise SystemExit(3)").exit_code == 3
    killed = python(provider, "import os; os.kill(os.getpid(), 9)")
    assert (killed.exit_code, killed.signal, killed.timed_out) == (None, 9, False)
    late = python(provider, "import time; time.sleep(60)", timeout=0.5)
    assert (late.exit_code, late.signal, late.timed_out) == (None, None, True)


def test_timeout_ends_a_child_in_its_own_session(provider: SandboxProvider) -> None:
    marker = f"31.{os.getpid()}"
    command = f"setsid setsid sleep {marker} & sleep {marker}"

    def use(box: Sandbox) -> Awaitable[ExecResult]:
        return box.exec(["sh", "-c", command], timeout=1.0)

    result = in_box(provider, use)
    assert isinstance(result, ExecResult)
    assert result.timed_out
    wait_until(lambda: not running(marker))


def test_background_child_neither_delays_nor_survives(provider: SandboxProvider) -> None:
    marker = f"32.{os.getpid()}"

    def use(box: Sandbox) -> Awaitable[ExecResult]:
        return box.exec(["sh", "-c", f"setsid sleep {marker} & echo done"], timeout=30)

    result = in_box(provider, use)
    assert isinstance(result, ExecResult)
    assert (result.exit_code, result.stdout, result.timed_out) == (0, b"done\n", False)
    wait_until(lambda: not running(marker))


def test_output_keeps_head_and_tail(provider: SandboxProvider) -> None:
    code = "import sys; sys.stdout.write('a' * 10 + 'x' * 3_000_000 + 'z' * 10)"
    result = python(provider, code, max_output=100)
    assert result.stdout[:10] == b"a" * 10 and result.stdout[-10:] == b"z" * 10
    assert len(result.stdout) == 100
    assert result.elided == 3_000_020 - 100


def test_capture_of_small_pieces() -> None:
    capture = Capture(6)
    for piece in (b"ab", b"cd", b"ef", b"gh"):
        capture.feed(piece)
    assert (capture.kept, capture.elided) == (b"abcfgh", 2)


def test_binary_input_round_trip(provider: SandboxProvider) -> None:
    data = bytes(range(256)) * 20_000
    code = "import sys, hashlib; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())"
    result = python(provider, code, stdin=data)
    assert result.stdout.decode().strip() == hashlib.sha256(data).hexdigest()


def test_unread_input_is_no_error(provider: SandboxProvider) -> None:
    assert python(provider, "pass", stdin=b"x" * 3_000_000).exit_code == 0


def test_environment_is_an_allow_list(
    provider: SandboxProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    code = "import os; print(sorted(os.environ), os.environ['GIVEN'])"
    result = python(provider, code, env={"GIVEN": "yes"})
    assert b"SECRET_TOKEN" not in result.stdout and b"yes" in result.stdout
    names = set(literal_eval(result.stdout.decode().rpartition(" ")[0])) - {"PWD", "LC_CTYPE"}
    assert names == {"GIVEN", "HOME", "LANG", "PATH", "TMPDIR"}


def test_report_descriptor(provider: SandboxProvider) -> None:
    code = "import os; os.write(int(os.environ['PALESTRA_REPORT_FD']), b'told')"
    assert python(provider, code, report=True).report == b"told"
    assert python(provider, code).exit_code == 1


def test_no_network(provider: SandboxProvider) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        code = f"import socket; socket.create_connection({address!r}, 2); print('connected')"
        result = python(provider, code)
    assert result.exit_code == 1 and b"connected" not in result.stdout


def test_no_abstract_sockets(provider: SandboxProvider) -> None:
    name = f"\0palestra-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name)
        server.listen()
        code = f"import socket; s = socket.socket(socket.AF_UNIX); s.connect({name!r})"
        assert python(provider, code).exit_code == 1


@pytest.mark.parametrize("path", ["/usr/x", "/etc/x", "/bin/x", "/palestra-x", "/lib/x"])
def test_nothing_is_written_outside(provider: SandboxProvider, path: str) -> None:
    result = python(provider, f"open({path!r}, 'w')")
    assert result.exit_code == 1
    assert not Path(path).exists()


def test_kernel_settings_are_not_writable(provider: SandboxProvider) -> None:
    for name in ("kernel/core_pattern", "kernel/hostname", "vm/overcommit_memory"):
        assert python(provider, f"open('/proc/sys/{name}', 'a')").exit_code == 1


def test_metadata_of_system_files_is_not_changed(provider: SandboxProvider) -> None:
    before = Path("/usr/bin/env").stat()
    code = (
        "import os\n"
        "for change in (os.chmod, 0), (os.utime, (0, 0)):\n"
        "    try:\n"
        "        change[0]('/usr/bin/env', change[1])\n"
        "    except OSError:\n"
        "        pass\n"
    )
    assert python(provider, code).exit_code == 0
    after = Path("/usr/bin/env").stat()
    assert (before.st_mode, before.st_mtime) == (after.st_mode, after.st_mtime)


def test_host_files_are_not_readable(provider: SandboxProvider, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hidden")
    for path in (str(secret), __file__, "/root/.bashrc", "/etc/shadow", "/proc/1/environ"):
        code = f"print(open({path!r}).read())"
        result = python(provider, code)
        assert result.exit_code == 1 or result.stdout == b"PWD=/\0\n", path


def test_host_processes_are_out_of_reach(provider: SandboxProvider) -> None:
    code = f"import os\nos.kill({os.getpid()}, 0)\nprint('reached')"
    result = python(provider, code)
    assert b"reached" not in result.stdout


def test_no_capabilities_and_no_tracing(provider: SandboxProvider) -> None:
    code = (
        "import ctypes, os\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "assert libc.ptrace(0, 0, 0, 0) == -1\n"
        "assert libc.unshare(0x10000000) == -1\n"
        "assert libc.mount(b'none', b'/tmp', b'tmpfs', 0, None) == -1\n"
        "print('refused')"
    )
    assert python(provider, code).stdout == b"refused\n"


def test_process_limit(provider: SandboxProvider) -> None:
    if "pids" not in provider.guarantees:
        pytest.skip("no writable pids cgroup on this machine")
    code = (
        "import os, time\n"
        "made = 0\n"
        "try:\n"
        "    for _ in range(500):\n"
        "        if os.fork() == 0:\n"
        "            time.sleep(60)\n"
        "        made += 1\n"
        "except OSError:\n"
        "    print(made)\n"
    )
    result = python(provider, code)
    assert 0 < int(result.stdout) < Limits().pids


def test_files_travel_both_ways(provider: SandboxProvider) -> None:
    async def use(box: Sandbox) -> None:
        await box.write("a/b/c.bin", b"\0\xff")
        await box.exec(["sh", "-c", "cat a/b/c.bin a/b/c.bin > twice"])
        assert await box.read("twice") == b"\0\xff\0\xff"
        await box.write("twice", b"new")
        assert await box.read("twice") == b"new"
        with pytest.raises(PathRefused):
            await box.read("twice", max_bytes=2)

    in_box(provider, use)


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "", "a//b", "./a", "a\0b"])
def test_path_traversal_is_refused(provider: SandboxProvider, path: str) -> None:
    async def use(box: Sandbox) -> None:
        with pytest.raises(PathRefused):
            await box.read(path)
        with pytest.raises(PathRefused):
            await box.write(path, b"")

    in_box(provider, use)


def test_links_pipes_and_folders_are_refused(provider: SandboxProvider) -> None:
    async def use(box: Sandbox) -> None:
        script = (
            "ln -s /etc/passwd link; mkfifo pipe; mkdir real; ln -s real around; ln -s /etc out"
        )
        await box.exec(["sh", "-c", script + "; echo 1 > real/file"])
        for path in ("link", "pipe", "real", "around/file", "out/passwd", "absent"):
            with pytest.raises(PathRefused):
                await box.read(path)
        for path in ("around/new", "out/palestra-x", "real"):
            with pytest.raises(PathRefused):
                await box.write(path, b"")
        await box.write("link", b"replaced, not followed")
        assert await box.read("link") == b"replaced, not followed"

    in_box(provider, use)


def test_workspace_goes_whatever_is_left(provider: SandboxProvider, tmp_path: Path) -> None:
    script = "mkdir -p a/b/c; touch a/b/c/f; ln -s / a/root; mkfifo a/p; chmod -R 000 a"

    def use(box: Sandbox) -> Awaitable[ExecResult]:
        return box.exec(["sh", "-c", script])

    in_box(provider, use)
    assert list(tmp_path.iterdir()) == []
    assert Path("/etc").is_dir()


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


def test_cancellation_leaves_nothing(provider: SandboxProvider, tmp_path: Path) -> None:
    marker = f"33.{os.getpid()}"

    async def use() -> None:
        async with provider.open() as box:
            await box.exec(["sh", "-c", f"setsid sleep {marker} & sleep {marker}"], timeout=60)

    async def run() -> None:
        task = asyncio.create_task(use())
        await asyncio.to_thread(wait_until, lambda: len(running(marker)) > 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    wait_until(lambda: not running(marker))
    assert list(tmp_path.iterdir()) == []


def test_boxes_do_not_see_each_other(provider: SandboxProvider) -> None:
    async def run() -> None:
        async with provider.open() as one, provider.open() as two:
            await one.write("mine", b"1")
            await one.exec(["sh", "-c", "echo 1 > $TMPDIR/mine"])
            listing = await two.exec(["sh", "-c", "ls -A . $TMPDIR"])
            assert b"mine" not in listing.stdout
            folder = str(one.folder)  # type: ignore[attr-defined]
            assert (await two.exec(["ls", folder])).exit_code != 0

    asyncio.run(run())


def test_many_boxes_at_once(provider: SandboxProvider, tmp_path: Path) -> None:
    async def one(number: int) -> bytes:
        async with provider.open() as box:
            return (await box.exec(["echo", str(number)], timeout=60)).stdout

    async def run() -> list[bytes]:
        return await asyncio.gather(*map(one, range(24)))

    assert asyncio.run(run()) == [f"{number}\n".encode() for number in range(24)]
    assert list(tmp_path.iterdir()) == []


def test_commands_that_cannot_start_are_data(provider: SandboxProvider) -> None:
    def use(box: Sandbox) -> Awaitable[ExecResult]:
        return box.exec(["no-such-program"])

    result = in_box(provider, use)
    assert isinstance(result, ExecResult)
    assert result.exit_code not in (0, None)


def test_no_descriptors_leak(provider: SandboxProvider) -> None:
    python(provider, "pass")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        python(provider, "pass")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_an_owner_is_told_apart_from_a_later_process_of_its_number() -> None:
    me = Owner.me()
    assert me.alive and Owner.parse(str(me)) == me
    assert not replace(me, started=me.started - 1).alive
    assert replace(me, pid=1 << 30, host="elsewhere").alive
    child = os.fork()
    if child == 0:
        os._exit(0)
    zombie = Owner(pid=child, started=0, host=me.host)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert not zombie.alive
    os.waitpid(child, 0)


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


def test_unsafe_local_warns_and_works(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    provider = choose(unsafe_local=True, root=tmp_path)
    assert isinstance(provider, UnsafeLocal)
    assert capsys.readouterr().err.startswith("warning: --unsafe-local")
    assert b"SECRET" not in python(provider, "import os; print(os.environ)").stdout
    assert python(provider, "raise SystemExit(4)").exit_code == 4


def test_a_box_that_does_not_start_is_an_infrastructure_fault(provider: SandboxProvider) -> None:
    async def run() -> None:
        async with provider.open() as box:
            shutil.rmtree(box.folder)  # type: ignore[attr-defined]
            await box.exec(["true"])

    with pytest.raises(SandboxError):
        asyncio.run(run())
