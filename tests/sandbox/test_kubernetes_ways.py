"""The ways to boxes on a real API server (``KUBECONFIG``), and what a box can do to its agent."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

import pytest

from palestra.sandbox import kubernetes, kubernetes_ways
from palestra.sandbox.auto import probe
from palestra.sandbox.base import BoxSpec, CreateError
from palestra.sandbox.kubernetes import Kubernetes
from palestra.sandbox.kubernetes_agent import TOKEN
from palestra.sandbox.kubernetes_api import Api
from palestra.sandbox.kubernetes_http import HttpChannel, Way
from palestra.sandbox.kubernetes_injection import PORT, digest
from palestra.sandbox.limits import Limits
from palestra.sandbox.remote import RemoteBox

SMALL = Limits(memory=128 << 20, pids=40, files=16 << 20, tmp=24 << 20)
OPTIONS: Mapping[str, Any] = {
    "image": os.environ.get("PALESTRA_TEST_IMAGE", "agentbase:bookworm"),
    "reserve": 0.02,
}

if not os.environ.get("KUBECONFIG"):
    if os.environ.get("CI") == "true" and "kubernetes" in os.environ.get("PALESTRA_REQUIRE", ""):
        pytest.fail("PALESTRA_REQUIRE names kubernetes, but KUBECONFIG is not set", pytrace=False)
    pytest.skip("KUBECONFIG is not set: no cluster to test on", allow_module_level=True)


@pytest.fixture(scope="module")
def direct() -> Kubernetes:
    """Boxes whose agents are reached at their address."""
    return Kubernetes(**OPTIONS, transport="direct")


@pytest.fixture
def unprobed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found out in other tests is forgotten, and waiting for what never comes is short."""
    monkeypatch.setattr(kubernetes, "_PROBED", {})
    monkeypatch.setattr(kubernetes, "_LINK_S", 4.0)
    monkeypatch.setattr(kubernetes_ways, "_TRY_S", 0.5)


# Prints what should not have worked, or was not to be seen.
_ATTACKS = """
import json, os, socket, stat, sys
bad = []
def attack(name, what, *arguments):
    try:
        bad.append([name, repr(what(*arguments))])
    except OSError:
        pass
address, port = sys.argv[1], int(sys.argv[2])
for host in (address, "127.0.0.1", "::1"):
    attack(f"connect {host}", socket.create_connection, (host, port), 5)
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):
    attack(f"socket {kind}", socket.socket, socket.AF_INET, kind)
link = "/run/palestra/link"
attack("plant a socket", socket.socket(socket.AF_UNIX).bind, f"{link}/box")
attack("write", open, f"{link}/file", "w")
attack("rename", os.rename, link, "/run/palestra/other")
attack("mode", os.chmod, link, 0o777)
attack("code", os.listdir, "/run/palestra/code")
bad += [["there", name] for name in os.listdir(link)]
me = os.getuid()
bad += [["sees", pid] for pid in os.listdir("/proc")
        if pid.isdigit() and os.stat(f"/proc/{pid}").st_uid not in (me, 0)]
listening = [line.split() for line in open("/proc/net/unix").readlines()[1:]]
bad += [["listens", *line] for line in listening if line[3] == "00010000"]
held = [fd for fd in range(64) if os.path.exists(f"/proc/self/fd/{fd}")]
bad += [["holds", fd] for fd in held if stat.S_ISSOCK(os.fstat(fd).st_mode)]
print(json.dumps(bad))
"""

# Prints where what it is told stands.
_SEARCH = """
import os, sys
wanted = sys.stdin.buffer.read()
assert len(wanted) > 40
paths = [f"/proc/{pid}/{name}" for pid in os.listdir("/proc") if pid.isdigit()
         for name in ("environ", "cmdline", "maps", "mountinfo")]
paths += [os.path.join(folder, name) for top in ("/run", "/tmp", "/workspace", "/dev/shm", "/etc")
          for folder, _, names in os.walk(top) for name in names]
for path in paths:
    try:
        if wanted in open(path, "rb").read():
            print(path)
    except OSError:
        pass
print("searched")
"""

_EXHAUSTING = {
    "descriptors": "import os, resource\n"
    "resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))\n"
    "held = []\n"
    "while True: held += os.pipe()\n",
    "sockets": "import socket\nheld = []\nwhile True: held.append(socket.socketpair())\n",
    "processes": "import os\nwhile True: os.fork()\n",
    "memory": "held = [bytearray(1 << 20)]\nwhile True: held.append(bytearray(1 << 20))\n",
    "shared memory": "open('/dev/shm/x', 'wb').write(bytes(100 << 20))\n",
    "messages": "import ctypes\nlibc = ctypes.CDLL(None)\n"
    "while True:\n"
    "    ident = libc.msgget(0, 0o1600)\n"
    "    if ident < 0 or libc.msgsnd(ident, bytes(8192), 8000, 0o4000) < 0: break\n",
    "signals": "import os\nos.kill(-1, 9)\n",
}


async def test_the_workload_cannot_get_at_its_agent(direct: Kubernetes) -> None:
    async with direct.open(BoxSpec(limits=SMALL)) as box:
        told = [_pod(box)["status"]["podIP"], str(PORT)]
        ended = await box.exec(["python3", "-I", "-c", _ATTACKS, *told])
        assert json.loads(ended.stdout) == [], ended.stderr


async def test_nothing_that_the_workload_uses_up_is_its_agents(direct: Kubernetes) -> None:
    async with direct.open(BoxSpec(limits=SMALL)) as box:
        for name, code in _EXHAUSTING.items():
            await box.exec(["python3", "-I", "-c", code], timeout=5)
            assert (await box.exec(["echo", name])).stdout == f"{name}\n".encode()
        assert await box.alive()


async def test_a_token_is_known_to_its_driver_alone(direct: Kubernetes) -> None:
    async with direct.open(BoxSpec(limits=SMALL)) as box:
        channel = box._link._channel  # type: ignore[attr-defined]
        token = channel._session.headers[TOKEN]
        assert len(token) >= 43 and token not in json.dumps(_pod(box))
        for held in (token, digest(token)):
            seen = await box.exec(["python3", "-I", "-c", _SEARCH], stdin=held.encode())
            assert seen.stdout == b"searched\n", seen.stdout
        for given in ({}, {TOKEN: secrets.token_urlsafe(32)}):
            assert _status(f"http://{_pod(box)['status']['podIP']}:{PORT}/out?at=0", given) == 403
        assert (await box.exec(["echo", "here"])).stdout == b"here\n"


async def test_a_command_outlives_connections_that_break(direct: Kubernetes) -> None:
    async with direct.open(BoxSpec(limits=SMALL)) as box:
        running = box.exec("sleep 1; echo done", timeout=30)
        ended = await _cutting(box, running)
        assert ended.stdout == b"done\n" and ended.exit_code == 0


async def test_through_the_api_server(unprobed: None) -> None:
    backend = Kubernetes(**OPTIONS, transport="proxy")
    async with backend.open(BoxSpec(limits=SMALL)) as box:
        data = os.urandom(3 << 20)
        await box.write("file", data)
        assert await box.read("file", max_bytes=len(data)) == data
        assert (await box.exec(["wc", "-c"], stdin=data)).stdout == f"{len(data)}\n".encode()


def test_the_best_way_is_found_and_told(unprobed: None) -> None:
    found = probe("kubernetes", **OPTIONS)
    assert found.way == "by HTTP at the address of their Pod" and not found.problem


def test_where_no_agent_is_reached_websockets_remain(
    unprobed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_ways, "way", _nowhere)
    backend = Kubernetes(**OPTIONS)
    assert backend.transport == "websocket" and "no_net" in backend.guarantees


def test_a_way_that_was_asked_for_and_does_not_work_is_an_error(
    unprobed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_ways, "way", _nowhere)
    with pytest.raises(CreateError, match=r"no way to its agent: direct: .*not reached"):
        Kubernetes(**OPTIONS, transport="direct")


def _pod(box: RemoteBox) -> dict[str, Any]:
    return Api().now("GET", f"pods/{box.name}")


def _status(url: str, headers: Mapping[str, str]) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def _nowhere(*_: object) -> Way:
    async def headers() -> Mapping[str, str]:
        return {}

    return Way(url="http://127.0.0.1:9", headers=headers)


async def _cutting(box: RemoteBox, running: Any) -> Any:
    """The result of a command during which all connections to its box are cut, again and again."""
    command = asyncio.create_task(running)
    channel = box._link._channel
    assert isinstance(channel, HttpChannel)
    while not command.done():
        await asyncio.sleep(0.1)
        for held in list(channel._session.connector._acquired):  # type: ignore[union-attr]
            if held.transport is not None:
                held.transport.abort()
    return await command
