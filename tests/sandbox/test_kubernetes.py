"""Kubernetes on a real API server (``KUBECONFIG``); what every backend shares is in contract/."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from palestra.rl.errors import BoxDied, UserError
from palestra.rl.types import CallCheck, Outcome, ScriptCheck, Task
from palestra.sandbox import kubernetes_claims as claims
from palestra.sandbox import kubernetes_cluster as cluster
from palestra.sandbox import kubernetes_lease as leases
from palestra.sandbox import kubernetes_pod as pods
from palestra.sandbox import kubernetes_reaper as reaper
from palestra.sandbox.auto import choose
from palestra.sandbox.base import BoxSpec, CreateError, TransportError, reap
from palestra.sandbox.checks import make_grader
from palestra.sandbox.kubernetes import Kubernetes
from palestra.sandbox.kubernetes_api import Api, ApiFault
from palestra.sandbox.kubernetes_injection import AGENT
from palestra.sandbox.kubernetes_stream import Stream
from palestra.sandbox.limits import Limits
from palestra.sandbox.remote import RemoteBox

IMAGE = os.environ.get("PALESTRA_TEST_IMAGE", "agentbase:bookworm")
PATIENCE_S = 60.0
Send = Callable[..., list[str]]
SMALL = Limits(memory=128 << 20, pids=40, files=16 << 20, tmp=24 << 20)

if not os.environ.get("KUBECONFIG"):
    if os.environ.get("CI") == "true" and "kubernetes" in os.environ.get("PALESTRA_REQUIRE", ""):
        pytest.fail("PALESTRA_REQUIRE names kubernetes, but KUBECONFIG is not set", pytrace=False)
    pytest.skip("KUBECONFIG is not set: no cluster to test on", allow_module_level=True)


@pytest.fixture(scope="module")
def admin() -> Api:
    """The API server as KUBECONFIG knows it."""
    return Api()


@pytest.fixture(scope="module")
def place(admin: Api, send: Send) -> Iterator[str]:
    """A namespace of this test run with everything of deploy/k8s that does not start Pods."""
    name = f"palestra-test-{secrets.token_hex(4)}"
    admin.now("POST", "/api/v1/namespaces", cluster.namespace(name))
    until(lambda: admin.now("GET", f"/api/v1/namespaces/{name}/serviceaccounts/default"))
    found = cluster.files(name, image=IMAGE, boxes=20)
    for file in ("network.yaml", "limits.yaml", "rbac.yaml"):
        for manifest in found[file]:
            send(admin, manifest)
    yield name
    admin.now("DELETE", f"/api/v1/namespaces/{name}")


@pytest.fixture(scope="module")
def driver(place: str, admin: Api, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Options for boxes made by the driver's own account, which shows that its rights suffice."""
    file = _kubeconfig(admin, place, cluster.DRIVER_ACCOUNT, tmp_path_factory.mktemp("config"))
    return {"image": IMAGE, "kubeconfig": str(file), "namespace": place, "reserve": 0.02}


WAYS = ["direct", "websocket"] if os.environ.get("PALESTRA_TESTS") == "full" else ["direct"]


@pytest.fixture(scope="module", params=WAYS)
def backend(driver: Mapping[str, Any], request: pytest.FixtureRequest) -> Kubernetes:
    """Boxes over the way that a driver on the node takes, or each that has code of its own."""
    return Kubernetes(**driver, transport=request.param)


@pytest.fixture
def api(admin: Api, place: str) -> Api:
    """The API server in the namespace of this test run."""
    return Api(namespace=place)


def test_what_holds_is_found_by_trying(backend: Kubernetes) -> None:
    assert backend.guarantees >= {
        *("fs", "no_net", "kill_tree", "signals", "no_new_privs", "user", "pidns", "seccomp"),
        *("memory", "pids", "tmp", "disk", "image"),
    }
    assert "netns" not in backend.guarantees, "a Pod has a network: only its sockets are refused"


@pytest.mark.parametrize("file", cluster.files("x", image=IMAGE, boxes=2))
def test_the_api_server_takes_every_manifest_as_it_is(
    api: Api, place: str, file: str, send: Send
) -> None:
    for manifest in cluster.files(place, image=IMAGE, boxes=2)[file]:
        if manifest["kind"] == "Namespace":
            manifest = cluster.namespace(f"{place}-dry")
        manifest = {**manifest, "metadata": _another(manifest["metadata"])}
        assert send(api, manifest, dry=True) == []


def test_the_api_server_takes_the_box_as_it_is(api: Api, send: Send) -> None:
    for digest in ("", "0" * 64):
        plan = pods.Plan(BoxSpec(labels={"task": "a/b"}), "python", digest=digest)
        manifest = pods.pod("palestra-dry", plan, owners=[], now=0.0)
        manifest["metadata"]["namespace"] = api.namespace
        assert send(api, manifest, dry=True) == []


async def test_the_workload_cannot_forge_kill_stop_or_read_its_supervisor(
    backend: Kubernetes,
) -> None:
    async with backend.open(BoxSpec(limits=SMALL)) as box:
        uid = (await box.exec("id -u")).stdout
        assert uid == (await box.exec("awk '/^Uid/{print $2}' /proc/1/status")).stdout
        for path in ("/proc/1/environ", "/proc/1/mem", "/proc/1/fd/0", "/proc/1/fd/1"):
            for way in (f"cat {path}", f": >> {path}"):
                assert (await box.exec(way)).exit_code != 0, way
        everything = "for i in $(seq 64); do kill -$i 1; done; echo still here"
        assert (await box.exec(everything)).stdout == b"still here\n"
        limits = "import resource; resource.prlimit(1, resource.RLIMIT_CPU, (1, 1))"
        assert (await box.exec(["python3", "-c", limits])).exit_code == 1
        # What speaks for a command can be ended by it, but not made to say anything.
        for attack in ("kill -9 $PPID", "kill -STOP $PPID", "kill -TERM $PPID", "kill -9 -1"):
            ended = await box.exec(f"{attack}; sleep 300", timeout=60)
            assert ended.signal and not (ended.stdout or ended.report or ended.oom), attack
        assert (await box.exec(["echo", "here"])).stdout == b"here\n" and await box.alive()


async def test_memory_of_what_speaks_for_commands_is_closed_too(backend: Kubernetes) -> None:
    code = (
        "import os\n"
        "for pid in ('1', str(os.getppid())):\n"
        "    for name in ('mem', 'environ', 'fd', 'maps', 'cwd'):\n"
        "        try:\n"
        "            path = f'/proc/{pid}/{name}'\n"
        "            print(os.listdir(path) if name == 'fd' else open(path, 'rb').read(1))\n"
        "        except OSError:\n"
        "            pass\n"
    )
    async with backend.open(BoxSpec(limits=SMALL)) as box:
        assert (await box.exec(["python3", "-c", code], report=True)).stdout == b""


async def test_there_is_nothing_to_steal(backend: Kubernetes) -> None:
    async with backend.open(BoxSpec(limits=SMALL)) as box:
        found = await box.exec("ls -A /var/run/secrets /run/secrets; env | grep -ci kubernetes")
        assert found.stdout == b"0\n"
        for family in (2, 10, 16, 17, 38, 40):
            code = f"import socket; socket.socket({family}, socket.SOCK_DGRAM)"
            assert (await box.exec(["python3", "-c", code])).exit_code == 1, family
        assert (await box.exec(["python3", "-c", "import socket; socket.socket(1)"])).exit_code == 0


GRADED = Task(
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
        ("import os; os.kill(-1, 9)\n", {"c": False, "s": False}),
        ("import os; os.kill(os.getppid(), 19)\n", {"c": False, "s": False}),
    ],
)
async def test_grading(backend: Kubernetes, text: str, passed: dict[str, bool]) -> None:
    verdict = await make_grader(backend)(GRADED, {"solution.py": text.encode()})
    assert (verdict.outcome, verdict.passed) == (Outcome.GRADED, passed)


async def test_an_image_that_is_not_there(backend: Kubernetes, api: Api) -> None:
    await _refused(backend, BoxSpec(image="palestra-no-such-image:0"), "image")
    await _refused(backend, BoxSpec(image="Not An Image"), "image")
    await _nothing(api)


async def test_more_than_the_quota(backend: Kubernetes, api: Api) -> None:
    quota = cluster.quota(api.namespace, boxes=0)
    quota["metadata"]["name"], quota["spec"] = "none", {"hard": {"pods": "0"}}
    api.now("POST", "resourcequotas", quota)
    try:
        await until_async(lambda: _is_quota(backend))
    finally:
        api.now("DELETE", "resourcequotas/none")
    await _refused(backend, BoxSpec(limits=replace(SMALL, memory=64 << 30)), "quota")
    await _nothing(api)


async def test_no_node_for_it(place: str, api: Api) -> None:
    with pytest.raises(CreateError) as error:
        Kubernetes(image=IMAGE, namespace=place, machine="aarch64", schedule_s=2.0)
    assert error.value.stage == "schedule"
    await _nothing(api)


async def test_no_right_to_make_boxes(
    backend: Kubernetes, place: str, admin: Api, tmp_path: Path
) -> None:
    file = _kubeconfig(admin, place, cluster.REAPER_ACCOUNT, tmp_path)
    # What holds here is known from the other account, which made a box to find out.
    asked = {"namespace": place, "transport": backend.transport}
    reader = Kubernetes(image=IMAGE, kubeconfig=str(file), **asked)
    await _refused(reader, BoxSpec(), "permission")


def test_no_cluster(tmp_path: Path) -> None:
    with pytest.raises(CreateError) as error:
        Kubernetes(image=IMAGE, kubeconfig=str(tmp_path / "none"))
    assert error.value.stage == "start" and "KUBECONFIG" in str(error.value)


async def test_the_drivers_account_gets_through_the_api_server_too(
    driver: Mapping[str, Any],
) -> None:
    async with Kubernetes(**driver, transport="proxy").open(BoxSpec(limits=SMALL)) as box:
        assert (await box.exec(["echo", "here"])).stdout == b"here\n"


async def test_a_pod_whose_making_nobody_answered_is_that_box(
    backend: Kubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def lost(method: str, path: str, *rest: Any, real: Any = backend._api.now, **more: Any) -> Any:
        answer = real(method, path, *rest, **more)
        if (method, path) == ("POST", "pods") and not made:
            made.append(answer["metadata"]["name"])
            raise ApiFault("queue", "no answer in time", 504)
        return answer

    monkeypatch.setattr(backend._api, "now", lost)
    async with backend.open(BoxSpec(limits=SMALL)) as box:
        assert [box.name] == made
        assert (await box.exec(["echo", "here"])).stdout == b"here\n"


async def test_memory_that_is_used_up_as_a_whole_is_told(backend: Kubernetes) -> None:
    async with backend.open(BoxSpec(limits=SMALL)) as box:
        ended = await box.exec(["python3", "-c", "bytearray(400 << 20)"], timeout=60)
        assert ended.oom and ended.signal == 9


async def test_a_pod_removed_from_outside_is_nobodys_fault(backend: Kubernetes, api: Api) -> None:
    box = await backend.create(BoxSpec(limits=SMALL))
    running = asyncio.create_task(box.exec("touch started; sleep 300", timeout=300))
    await until_async(lambda: _has(box, "started"))
    api.now("DELETE", f"pods/{box.name}")
    with pytest.raises(BoxDied) as died:
        await running
    assert not died.value.by_agent
    await box.close()


async def test_a_connection_that_is_cut_is_no_fault_of_the_agents(
    backend: Kubernetes, api: Api
) -> None:
    box = await backend.create(BoxSpec(limits=SMALL))
    running = asyncio.create_task(box.exec("touch started; sleep 300", timeout=300))
    await until_async(lambda: _has(box, "started"))
    channel = box._link._channel
    if isinstance(channel, Stream):
        channel._connection.transport.abort()
    else:
        # Its agent, by someone who may: in its container, of which it is the first process.
        cut = ["python3", "-c", "import os; os.kill(1, 15)"]
        await Stream.started(api, box.name, cut, container=AGENT)
    with pytest.raises(TransportError):
        await running
    assert not await box.alive()
    await _nothing(api)


async def test_the_cluster_removes_what_a_removed_lease_owned(
    backend: Kubernetes, api: Api
) -> None:
    async with _kept(backend) as box:
        [owner] = api.now("GET", f"pods/{box.name}")["metadata"]["ownerReferences"]
        api.now("DELETE", f"{leases.LEASES}/{owner['name']}")
        await until_async(lambda: _gone(api, box.name))
        await until_async(lambda: _dead(box))
    # The next box has another owner, once the heart has noticed.
    await until_async(lambda: _owned_anew(backend, api, owner["uid"]))


async def test_a_driver_that_is_killed_leaves_nothing(backend: Kubernetes, api: Api) -> None:
    labels = {"case": secrets.token_hex(4)}
    with _driver(api, labels) as driver:
        assert await reap(backend, labels) == []
        driver.send_signal(signal.SIGKILL)
    assert len(await reap(backend, labels)) == 5
    await _nothing(api)
    drivers = api.now("GET", leases.LEASES, query={"labelSelector": leases.DRIVER})["items"]
    assert all(leases.alive(one, datetime.now(UTC)) for one in drivers), "its Lease is left"


def test_the_reaper_removes_stale_leases_and_no_others(
    api: Api, admin: Api, tmp_path: Path
) -> None:
    stale, fresh = (
        leases.lease("stale", datetime.now(UTC)),
        leases.lease("fresh", datetime.now(UTC)),
    )
    long_ago = datetime.now(UTC) - timedelta(seconds=leases.STALE_S + reaper.GRACE_S + 60)
    stale["spec"]["renewTime"] = long_ago.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    other = {**stale, "metadata": {"name": "somebody-elses"}}
    for one in (stale, fresh, other):
        api.now("POST", leases.LEASES, one)
    (tmp_path / "token").write_text(_token(admin, api.namespace, cluster.REAPER_ACCOUNT))
    env = {"API": admin.host, "TOKEN": str(tmp_path / "token")}
    env["CERTIFICATES"] = str(admin._settings.ssl_ca_cert)
    command = [sys.executable, "-I", "-c", Path(reaper.__file__).read_text(), api.namespace]
    ended = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert ended.stdout == f"{stale['metadata']['name']}\n"
    for one in (fresh, other):
        api.now("DELETE", f"{leases.LEASES}/{one['metadata']['name']}")


async def test_a_box_that_is_adopted_has_two_owners(backend: Kubernetes, place: str) -> None:
    key = f"k-{secrets.token_hex(4)}"
    second = Kubernetes(image=IMAGE, namespace=place, transport=backend.transport)
    async with _kept(backend, key=key) as box:
        other = await second.create(BoxSpec(limits=SMALL, key=key))
        found = await second._pods.found(box.name)
        assert found and len(found["metadata"]["ownerReferences"]) == 2
        assert (await other.exec(["echo", "two"])).stdout == b"two\n"
        assert (await box.exec(["echo", "one"])).stdout == b"one\n"
        # The supervisor of an adopted box is not its first process, and can be ended.
        first = "grep -qP '^PPid:\\t0$' $p/status && kill -9 ${p#/proc/}"
        died = f"for p in /proc/[0-9]*; do {first}; done"
        with pytest.raises(BoxDied) as error:
            await other.exec(f"{died}; sleep 300", timeout=60)
        assert error.value.by_agent


async def test_a_box_with_other_limits_is_not_adopted(backend: Kubernetes) -> None:
    key = f"k-{secrets.token_hex(4)}"
    async with _kept(backend, key=key):
        await _refused(backend, BoxSpec(limits=replace(SMALL, pids=7), key=key), "start")


def test_a_missing_guarantee_is_a_refusal(place: str) -> None:
    with pytest.raises(UserError, match="kubernetes lacks netns"):
        choose(
            frozenset({"netns"}),
            backend="kubernetes",
            containers={"image": IMAGE, "namespace": place},
        )


def test_the_cluster_is_asked_for_warm_pools(admin: Api) -> None:
    groups = [one["name"] for one in admin.now("GET", "/apis")["groups"]]
    assert claims.installed(admin) is (claims.GROUP in groups)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        with suppress(ApiFault):
            if condition():
                return
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)


async def until_async(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not await condition():
        assert time.monotonic() < deadline, "it never came true"
        await asyncio.sleep(0.05)


@asynccontextmanager
async def _kept(backend: Kubernetes, **settings: Any) -> AsyncIterator[RemoteBox]:
    async with AsyncExitStack() as stack:
        box = await backend.create(BoxSpec(limits=SMALL, **settings))
        stack.push_async_callback(box.close)
        yield box


async def _refused(backend: Kubernetes, spec: BoxSpec, stage: str) -> None:
    with pytest.raises(CreateError) as error:
        await backend.create(spec)
    assert error.value.stage == stage, error.value


async def _is_quota(backend: Kubernetes) -> bool:
    try:
        async with _kept(backend):
            return False
    except CreateError as error:
        return error.stage == "quota"


async def _nothing(api: Api) -> None:
    await until_async(lambda: _empty(api))


async def _empty(api: Api) -> bool:
    return not api.now("GET", "pods", query={"labelSelector": pods.BOX})["items"]


async def _gone(api: Api, name: str) -> bool:
    try:
        found = api.now("GET", f"pods/{name}")
    except ApiFault as fault:
        return fault.status == 404
    return "deletionTimestamp" in found["metadata"]


async def _has(box: RemoteBox, path: str) -> bool:
    with suppress(Exception):
        return path in await box.get()
    return False


async def _dead(box: RemoteBox) -> bool:
    return not await box.alive()


async def _owned_anew(backend: Kubernetes, api: Api, uid: str) -> bool:
    with suppress(ApiFault, CreateError, KeyError):
        async with _kept(backend) as box:
            [owner] = api.now("GET", f"pods/{box.name}")["metadata"]["ownerReferences"]
            return str(owner["uid"]) != uid
    return False


DRIVER = """
import asyncio, json, sys
from palestra.sandbox.base import BoxSpec
from palestra.sandbox.kubernetes import Kubernetes

async def main(image, namespace, labels):
    backend = Kubernetes(image=image, namespace=namespace, reserve=0.02)
    boxes = [await backend.create(BoxSpec(labels=labels)) for _ in range(5)]
    print("ready", flush=True)
    await asyncio.gather(*(box.exec("sleep 300", timeout=300) for box in boxes))

asyncio.run(main(*json.loads(sys.argv[1])))
"""


@contextmanager
def _driver(api: Api, labels: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has five boxes open."""
    given = json.dumps([IMAGE, api.namespace, dict(labels)])
    with subprocess.Popen([sys.executable, "-c", DRIVER, given], stdout=subprocess.PIPE) as driver:
        try:
            assert driver.stdout and driver.stdout.readline() == b"ready\n"
            yield driver
        finally:
            driver.kill()


def _token(admin: Api, place: str, account: str) -> str:
    """What a Pod of that account would find in a file."""
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    path = f"/api/v1/namespaces/{place}/serviceaccounts/{account}/token"
    return str(admin.now("POST", path, request)["status"]["token"])


def _kubeconfig(admin: Api, place: str, account: str, folder: Path) -> Path:
    """A file with which one is that account."""
    ca = str(admin._settings.ssl_ca_cert)
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": admin.host, "certificate-authority": ca}}],
        "users": [{"name": "u", "user": {"token": _token(admin, place, account)}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    file = folder / account
    file.write_text(json.dumps(config))
    return file


def _another(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {**metadata, "name": f"{metadata['name']}-dry"}
