"""Docker boxes: what is particular to them. What all backends share is in ``contract``."""

from __future__ import annotations

import asyncio
import io
import os
import secrets
import tarfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import docker as sdk
import pytest

from palestra.rl.errors import BoxDied, SandboxError
from palestra.rl.types import CallCheck, Outcome, Sandbox, ScriptCheck, Task
from palestra.sandbox import docker as backend_module
from palestra.sandbox.base import (
    GUARANTEES,
    Box,
    BoxSpec,
    CreateError,
    TransportError,
    opening,
    reap,
)
from palestra.sandbox.checks import make_grader
from palestra.sandbox.docker import Docker
from palestra.sandbox.docker_images import Image
from palestra.sandbox.docker_settings import Plan, user
from palestra.sandbox.inbox import DATA, END, FRAME
from palestra.sandbox.limits import Limits
from palestra.sandbox.remote import Fate, RemoteBox

IMAGE = os.environ.get("PALESTRA_TEST_IMAGE", "agentbase:bookworm")


def absent(reason: str) -> None:
    """Skip, unless this machine is said to have Docker."""
    needed = "docker" in os.environ.get("PALESTRA_REQUIRE", "").split(",")
    (pytest.fail if needed and os.environ.get("CI") == "true" else pytest.skip)(reason)


@pytest.fixture(scope="module")
def docker() -> Docker:
    if not os.environ.get("DOCKER_HOST"):
        absent("DOCKER_HOST is not set")
    try:
        return Docker(image=IMAGE)
    except CreateError as error:
        absent(str(error))
        raise


@pytest.fixture
def api(docker: Docker) -> Any:
    return docker.daemon.api


@pytest.fixture
def labels() -> dict[str, str]:
    return {"case": secrets.token_hex(8)}


def in_box(docker: Docker, use: Callable[[Box], Awaitable[Any]], **spec: Any) -> Any:
    async def run() -> Any:
        async with docker.open(BoxSpec(**spec)) as box:
            return await use(box)

    return asyncio.run(run())


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)


def found(docker: Docker, labels: dict[str, str]) -> list[str]:
    return [box.name for box in asyncio.run(docker.list(labels))]


# --- hardening -----------------------------------------------------------------------------------


def test_every_guarantee_was_found_to_hold(docker: Docker) -> None:
    assert docker.guarantees == set(GUARANTEES)


def test_hardening_as_the_daemon_sees_it(docker: Docker, api: Any) -> None:
    async def look(box: Box) -> Any:
        return api.inspect_container(box.name)

    limits = Limits(memory=256 << 20, pids=50)
    facts = in_box(docker, look, limits=limits, labels={"run": "tiny-0"}, key="hardening")
    host = facts["HostConfig"]
    assert facts["Name"] == "/palestra-hardening"
    assert facts["Image"] == api.inspect_image(IMAGE)["Id"] == facts["Config"]["Image"]
    assert (host["Privileged"], host["ReadonlyRootfs"], host["AutoRemove"]) == (False, True, True)
    assert host["CapDrop"] == ["ALL"] and set(host["CapAdd"]) == {"KILL", "SETGID", "SETUID"}
    assert host["SecurityOpt"] == ["no-new-privileges"], "and the daemon's own seccomp profile"
    assert (host["NetworkMode"], host["IpcMode"], host["PidMode"]) == ("none", "private", "")
    assert host["Memory"] == host["MemorySwap"] == 256 << 20
    assert (host["PidsLimit"], host["NanoCpus"]) == (50, 10**9)
    assert host["RestartPolicy"]["Name"] == "no" and host["LogConfig"]["Type"] == "none"
    assert set(host["Tmpfs"]) == {"/workspace", "/tmp"}
    assert all("size=" in host["Tmpfs"][path] for path in host["Tmpfs"])
    assert not host["Binds"] and not facts["Mounts"] and not host["Devices"]
    told = facts["Config"]["Labels"]
    assert told["palestra.run"] == "tiny-0" and told["palestra.box.key"] == "hardening"
    assert told["palestra.box.owner"].startswith(f"{os.getpid()}.")
    assert float(told["palestra.box.expires-at"]) > time.time()


def test_hardening_from_inside(docker: Docker) -> None:
    code = (
        "import os\n"
        "facts = dict(l.split(':', 1) for l in open('/proc/self/status') if ':' in l)\n"
        "for name in ('CapInh', 'CapPrm', 'CapEff', 'CapAmb', 'NoNewPrivs', 'Seccomp', 'Groups'):\n"
        "    print(name, facts[name].strip())\n"
        "for line in open('/proc/self/mounts'):\n"
        "    source, path, kind, options = line.split()[:4]\n"
        "    if os.path.isdir(path) and os.access(path, os.W_OK) and options.startswith('rw'):\n"
        "        print('writable', path, kind)\n"
        "try:\n"
        "    os.setuid(0)\n"
        "except PermissionError:\n"
        "    print('stays', os.getresuid(), os.getresgid())\n"
    )
    key = f"k-{secrets.token_hex(4)}"
    ended = in_box(docker, lambda box: box.exec(["python3", "-c", code]), key=key)
    number = user(Plan(f"palestra-{key}", BoxSpec(), Image("", ()), 1.0, ""))
    lines = ended.stdout.decode()
    none = "0" * 16
    for expected in (f"CapPrm {none}", f"CapEff {none}", f"CapAmb {none}", "NoNewPrivs 1"):
        assert expected in lines
    assert "Seccomp 2" in lines and f"stays {(number,) * 3} {(number,) * 3}" in lines
    writable = {line.split()[1] for line in lines.splitlines() if line.startswith("writable")}
    assert writable - {"/dev/mqueue"} == {"/workspace", "/tmp", "/dev/shm"}


def test_volumes_and_health_checks_of_an_image_are_switched_off(docker: Docker, api: Any) -> None:
    made = api.create_container(IMAGE, ["true"])["Id"]
    changes = ["VOLUME /srv", "HEALTHCHECK CMD touch /tmp/checked", "ENV OF_IMAGE=1"]
    image = api.commit(made, changes=changes)["Id"]
    try:

        async def look(box: Box) -> tuple[Any, bytes]:
            ended = await box.exec("echo x > /srv/x && echo written; env")
            return api.inspect_container(box.name), ended.stdout

        facts, out = in_box(docker, look, image=image)
        assert [mount for mount in facts["Mounts"] if mount["Type"] == "volume"] == []
        assert facts["Config"]["Healthcheck"]["Test"] == ["NONE"]
        assert b"written" not in out and b"OF_IMAGE" not in out
    finally:
        api.remove_container(made)
        api.remove_image(image)


# --- the supervisor ------------------------------------------------------------------------------

_ATTACKS = """
import ctypes, glob, os, signal
libc = ctypes.CDLL(None, use_errno=True)
def succeeds(what, *arguments):
    try:
        return what(*arguments) not in (-1, None)
    except OSError:
        return False
def opens(path, mode):
    return open(path, mode)
done = []
held = sorted(int(os.path.basename(path)) for path in glob.glob("/proc/self/fd/*"))[:-1]
everybody = [int(p) for p in os.listdir("/proc") if p.isdigit()]
others = [pid for pid in everybody if os.stat(f"/proc/{pid}").st_uid != os.getuid()]
secrets = ["mem", "environ", "maps", "syscall", "stack", "oom_score_adj", "fd/0", "fd/1", "fd/2"]
assert 1 in others and len(others) >= 2, others
for pid in others:
    for number in (0, signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGALRM):
        if succeeds(lambda: [os.kill(pid, number)]):
            done.append(("kill", pid, number))
    for name in secrets:
        for mode in ("rb", "wb"):
            public = (name, mode) == ("oom_score_adj", "rb")
            if not public and succeeds(opens, f"/proc/{pid}/{name}", mode):
                done.append((name, pid, mode))
    for folder in ("fd", "map_files", "cwd", "root"):
        if succeeds(os.listdir, f"/proc/{pid}/{folder}"):
            done.append((folder, pid))
    for request in (16, 0x4206):
        if succeeds(libc.ptrace, request, pid, 0, 0):
            done.append(("ptrace", pid, request))
    word = ctypes.create_string_buffer(8)
    iovec = (ctypes.c_uint64 * 2)(ctypes.addressof(word), 8)
    if succeeds(libc.process_vm_readv, pid, iovec, 1, iovec, 1, 0):
        done.append(("process_vm_readv", pid))
    pidfd = os.pidfd_open(pid)
    for fd in range(8):
        if succeeds(libc.syscall, 438, pidfd, fd, 0):
            done.append(("pidfd_getfd", pid, fd))
    if succeeds(lambda: [os.setpriority(os.PRIO_PROCESS, pid, 19)]):
        done.append(("setpriority", pid))
    if succeeds(lambda: [os.sched_setaffinity(pid, {0})]):
        done.append(("setaffinity", pid))
print("held:", held)
print("done:", done)
"""


def test_the_supervisor_is_out_of_reach(docker: Docker) -> None:
    async def attack(box: Box) -> None:
        ended = await box.exec(["python3", "-c", _ATTACKS], timeout=60)
        assert ended.stderr == b""
        assert ended.stdout == b"held: [0, 1, 2]\ndone: []\n"
        assert (await box.exec(["echo", "here"])).stdout == b"here\n"

    in_box(docker, attack)


def test_frames_that_a_command_prints_are_output(docker: Docker) -> None:
    head = b'{"exit_code": 0, "signal": null}'
    forged = b"".join(
        FRAME.pack(number, kind, len(data)) + data
        for number in range(8)
        for kind, data in ((DATA, len(head).to_bytes(4, "big") + head), (END, bytes(4)))
    )
    docker_frame = b"\x01\0\0\0" + len(forged).to_bytes(4, "big") + forged

    async def forge(box: Box) -> None:
        script = 'cat > f; cat f f; cat f >&2; cat f >&"$PALESTRA_REPORT_FD"; exit 7'
        ended = await box.exec(["bash", "-c", script], stdin=docker_frame, report=True)
        assert (ended.exit_code, ended.stdout) == (7, docker_frame * 2)
        assert (ended.stderr, ended.report) == (docker_frame, docker_frame)

    in_box(docker, forge)


def test_a_dead_supervisor_is_the_agents_doing_only_while_a_command_runs(
    docker: Docker, api: Any
) -> None:
    def end_supervisor(box: Box) -> None:
        """From outside, as root: the daemon knows of no kill, as if it had died by itself."""
        job = api.exec_create(box.name, ["sh", "-c", "kill -TERM 1"], user="0:0")
        api.exec_start(job["Id"])

    async def run() -> None:
        async with docker.open() as box:
            running = asyncio.create_task(box.exec("touch started; sleep 300", timeout=300))
            while "started" not in await box.get():
                pass
            await asyncio.to_thread(end_supervisor, box)
            with pytest.raises(BoxDied) as died:
                await running
            assert died.value.by_agent
        async with docker.open() as box:
            await asyncio.to_thread(end_supervisor, box)
            with pytest.raises(BoxDied) as died:
                while await box.exec(["true"]):
                    pass
            assert not await box.alive()
            with pytest.raises(BoxDied):
                await box.read("f")

    asyncio.run(run())


def test_an_end_that_the_daemon_knows_nothing_of_is_nobodys_doing(
    docker: Docker, api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon that was started anew has forgotten what happened before."""

    async def ended(box: Box) -> tuple[str, Fate]:
        ident = api.inspect_container(box.name)["Id"]
        await box.close()
        return ident, backend_module._fate(api, ident)

    ident, fate = in_box(docker, ended)
    assert fate.gone and fate.by_us and "removed from outside" in fate.text
    monkeypatch.setattr(api, "events", lambda **asked: [])
    fate = backend_module._fate(api, ident)
    assert fate.gone and fate.by_us and "does not know" in fate.text


def test_a_box_that_was_started_anew_is_not_that_box(docker: Docker, api: Any) -> None:
    labels = {"case": secrets.token_hex(8)}

    async def again(box: Box) -> None:
        await asyncio.to_thread(api.restart, box.name, 1)
        assert not await box.alive()
        with pytest.raises(SandboxError) as fault:
            await box.exec(["true"])
        assert not getattr(fault.value, "by_agent", False)

    in_box(docker, again, labels=labels)
    assert found(docker, labels) == []


def test_the_dead_are_reaped(docker: Docker) -> None:
    async def orphan(box: Box) -> bytes:
        await box.exec("for i in 1 2 3 4 5 6 7 8; do setsid sh -c 'setsid sleep 300 &' & done")
        return (await box.exec("grep -h ^State: /proc/[0-9]*/status")).stdout

    states = in_box(docker, orphan).decode().splitlines()
    assert 0 < len(states) <= 3 and not [state for state in states if "Z" in state]


def test_a_box_that_does_not_answer_is_removed(
    docker: Docker, labels: dict[str, str], api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("palestra.sandbox.remote._GRACE_S", 0.5)
    monkeypatch.setattr("palestra.sandbox.link._CANCEL_S", 0.5)

    async def run() -> None:
        box = await docker.create(BoxSpec(labels=labels))
        await asyncio.to_thread(api.pause, box.name)
        with pytest.raises(TransportError):
            await box.exec(["true"], timeout=0.1)
        assert not await box.alive()
        assert await docker.list(labels) == []

    asyncio.run(run())


# --- lives ---------------------------------------------------------------------------------------


def test_the_daemon_removes_a_box_whose_time_is_over(
    docker: Docker, labels: dict[str, str]
) -> None:
    async def make() -> None:
        await docker.create(BoxSpec(labels=labels, ttl=2.0, key=f"k-{secrets.token_hex(4)}"))

    asyncio.run(make())
    until(lambda: found(docker, labels) == [])


def test_a_box_whose_driver_is_gone_ends_by_itself(
    docker: Docker, labels: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend_module, "_ORPHAN_S", 1.0)

    async def make() -> None:
        box = await docker.create(BoxSpec(labels=labels))
        assert isinstance(box, RemoteBox)
        box._link.close()

    asyncio.run(make())
    until(lambda: found(docker, labels) == [])


def test_a_connection_that_is_cut_is_no_fault_of_the_agents(
    docker: Docker, labels: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the box has noticed first and is gone before anybody asks."""
    monkeypatch.setattr(backend_module, "_ORPHAN_S", 0.0)

    async def run() -> None:
        box = await docker.create(BoxSpec(labels=labels))
        running = asyncio.create_task(box.exec("touch started; sleep 300", timeout=300))
        while "started" not in await box.get():
            pass
        box._link._channel._writer.transport.abort()  # type: ignore[attr-defined]
        with pytest.raises(TransportError):
            await running
        assert not await box.alive()

    asyncio.run(run())
    until(lambda: found(docker, labels) == [])


def test_a_box_belongs_to_who_adopted_it(
    docker: Docker, labels: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = BoxSpec(labels=labels, key=f"k-{secrets.token_hex(4)}")

    async def run() -> None:
        with monkeypatch.context() as patch:
            # A process that is certainly dead: of this machine, with a number that nobody has.
            dead = f"{2**30}.{docker_owner().partition('.')[2]}"
            patch.setattr("palestra.sandbox.docker_settings.Owner.me", lambda: dead)
            first = await docker.create(spec)
            await first.write("kept", b"1")
            first._link.close()
        assert not (await docker.list(labels))[0].owner_alive
        second = await docker.create(spec)
        assert await second.read("kept") == b"1"
        assert (await docker.list(labels))[0].owner_alive
        assert await reap(docker, labels) == []
        second._link.close()
        deadline = time.monotonic() + 30
        while not await reap(docker, labels):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)

    asyncio.run(run())


def docker_owner() -> str:
    from palestra.sandbox.owner import Owner

    return str(Owner.me())


def test_a_key_is_for_one_kind_of_box(docker: Docker) -> None:
    key = f"k-{secrets.token_hex(4)}"

    async def run() -> None:
        async with docker.open(BoxSpec(key=key)):
            with pytest.raises(CreateError, match="other limits"):
                await docker.create(BoxSpec(key=key, limits=Limits(pids=7)))

    asyncio.run(run())


def test_the_event_loop_is_never_held(docker: Docker, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: set[str] = set()
    for name in ("create_container", "attach_socket", "start", "remove_container", "containers"):
        original = getattr(sdk.APIClient, name)

        def noted(*args: Any, original: Any = original, **options: Any) -> Any:
            threads.add(threading.current_thread().name)
            return original(*args, **options)

        monkeypatch.setattr(sdk.APIClient, name, noted)
    in_box(docker, lambda box: docker.list({"none": "0"}))
    assert threads and all(name.startswith("docker_") for name in threads)


def test_waiting_for_ones_turn_is_told_from_a_slow_start(
    docker: Docker, labels: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    made = backend_module._made

    def slow(*args: Any, **options: Any) -> Any:
        assert go.wait(60)
        return made(*args, **options)

    async def run(stage: str) -> None:
        with pytest.raises(CreateError) as error:
            making = asyncio.create_task(docker.create(BoxSpec(labels=labels)))
            # Undoing what was made waits for it: the box must be let go for the error to come.
            asyncio.get_running_loop().call_later(0.5, go.set)
            await making
        assert error.value.stage == stage
        assert await docker.list(labels) == []

    monkeypatch.setattr(backend_module, "_made", slow)
    with monkeypatch.context() as patch:
        patch.setattr(backend_module, "_READY_S", 0.1)
        asyncio.run(run("start"))
    with monkeypatch.context() as patch:
        patch.setattr(backend_module, "_QUEUE_S", 0.1)
        go.clear()
        busy = [docker.daemon.submit(lambda _: go.wait(60)) for _ in range(16)]
        asyncio.run(run("queue"))
        assert all(job.result(60) for job in busy)


# --- obstacles -----------------------------------------------------------------------------------


@pytest.fixture
def bare_image(api: Any) -> Iterator[str]:
    """An image with one text file."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("file"))
    name = f"palestra-test-bare:{secrets.token_hex(4)}"
    repository, _, tag = name.partition(":")
    api.import_image_from_data(data.getvalue(), repository=repository, tag=tag)
    yield name
    api.remove_image(name)


def refusal(docker: Docker, spec: BoxSpec) -> CreateError:
    with pytest.raises(CreateError) as error:
        asyncio.run(docker.create(spec))
    assert "\n" not in str(error.value)
    return error.value


def test_an_image_without_python_is_told_as_that(
    docker: Docker, bare_image: str, labels: dict[str, str]
) -> None:
    error = refusal(docker, BoxSpec(image=bare_image, labels=labels))
    assert error.stage == "image" and "python3" in str(error)
    assert found(docker, labels) == []


def test_a_missing_image_says_how_to_get_it(docker: Docker) -> None:
    error = refusal(docker, BoxSpec(image="palestra-no-such-image:0"))
    assert error.stage == "image" and "docker pull palestra-no-such-image:0" in str(error)


def test_limits_that_the_daemon_refuses_are_a_quota(
    docker: Docker, labels: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = BoxSpec(limits=Limits(memory=1 << 20), labels=labels)
    assert refusal(docker, tiny).stage == "quota"
    monkeypatch.setattr(docker, "_cpus", 4096.0)
    assert refusal(docker, BoxSpec(labels=labels)).stage == "quota"
    assert found(docker, labels) == []


def test_a_tag_that_moves_is_not_followed(docker: Docker, bare_image: str, api: Any) -> None:
    name = f"palestra-test-pin:{secrets.token_hex(4)}"
    repository, _, tag = name.partition(":")
    api.tag(IMAGE, repository, tag)
    try:

        async def image_of(box: Box) -> str:
            return str(api.inspect_container(box.name)["Image"])

        first = in_box(docker, image_of, image=name)
        api.tag(bare_image, repository, tag, force=True)
        assert in_box(docker, image_of, image=name) == first
    finally:
        api.remove_image(name)


# --- grading -------------------------------------------------------------------------------------

TASK = Task(
    id="t",
    source="test",
    kind="repair",
    prompt="",
    files={},
    reference={"solution.py": "def f(x): return x * 2\n"},
    artifacts=("solution.py",),
    hidden=(
        CallCheck(id="c", module="solution", function="f", args="(2,)", expected="4"),
        ScriptCheck(id="s", module="solution", names=("f",), code="assert f(3) == 6"),
    ),
)


@pytest.mark.parametrize(
    ("text", "passed"),
    [
        ("def f(x): return x * 2\n", {"c": True, "s": True}),
        ("def f(x): return x + 2\n", {"c": True, "s": False}),
        ("import os; os._exit(0)\n", {"c": False, "s": False}),
    ],
)
def test_grading_in_docker(docker: Docker, text: str, passed: dict[str, bool]) -> None:
    verdict = asyncio.run(make_grader(docker)(TASK, {"solution.py": text.encode()}))
    assert (verdict.outcome, verdict.passed) == (Outcome.GRADED, passed)


def test_a_box_that_is_taken_away_is_no_verdict(docker: Docker) -> None:
    class Dying:
        name = "docker"
        guarantees = docker.guarantees

        @asynccontextmanager
        async def open(self, image: object = None) -> Any:
            async with opening(docker, BoxSpec()) as box:
                await docker.remove(box.name)
                yield box

    verdict = asyncio.run(make_grader(Dying())(TASK, {"solution.py": b"def f(x): return 4\n"}))
    assert verdict.outcome is Outcome.INFRA_FAILURE and not verdict.passed


def test_boxes_are_what_an_episode_needs(docker: Docker) -> None:
    opened: AbstractAsyncContextManager[Sandbox] = docker.open()
    assert opened is not None and not Path("/workspace").exists()
