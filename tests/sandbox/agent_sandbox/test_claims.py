"""Boxes out of a warm pool of agent-sandbox; all but its controllers is real."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from palestra.rl.errors import BoxDied
from palestra.sandbox import kubernetes_claims as claims
from palestra.sandbox import kubernetes_cluster as cluster
from palestra.sandbox import kubernetes_lease as leases
from palestra.sandbox import kubernetes_ways as ways
from palestra.sandbox.base import BoxSpec, CreateError, reap
from palestra.sandbox.kubernetes import Kubernetes
from palestra.sandbox.kubernetes_api import Api, ApiFault
from palestra.sandbox.kubernetes_injection import digest
from palestra.sandbox.kubernetes_keeper import KubernetesKeeper
from palestra.sandbox.limits import Limits

SMALL = Limits(memory=128 << 20, pids=40, files=16 << 20, tmp=24 << 20)
SPEC = BoxSpec(limits=SMALL)
IMAGE = os.environ.get("PALESTRA_TEST_IMAGE", "agentbase:bookworm")

Until = Callable[[Callable[[], object]], None]


WAYS = ["direct", "websocket"] if os.environ.get("PALESTRA_TESTS") == "full" else ["direct"]


@pytest.fixture(scope="module", params=WAYS)
def backend(api: Api, controller: Any, request: pytest.FixtureRequest) -> Iterator[Kubernetes]:
    """Boxes with two of them kept warm."""
    yield (made := _made(api, request.param))
    made._pods._heart.stop()


def _made(api: Api, transport: Any, **settings: Any) -> Kubernetes:
    given = {"reserve": 0.02, "transport": transport, "warm": 2, "limits": SMALL, **settings}
    return Kubernetes(image=IMAGE, namespace=api.namespace, **given)


async def test_a_box_comes_out_of_the_pool_and_goes_with_its_claim(
    backend: Kubernetes, api: Api, until: Until
) -> None:
    async with backend.open(SPEC):
        await asyncio.to_thread(until, lambda: len(_warm(api)) == 2)
    before = _warm(api)
    labels = {"run": "r", "task": "a/b c"}
    async with backend.open(replace(SPEC, labels=labels, env={"GIVEN": "1"})) as box:
        assert box.name in before, "it was there already"
        assert (await box.exec("echo $GIVEN", stdin=b"")).stdout == b"1\n"
        await box.write("file", bytes(2 << 20))
        assert await box.read("file", max_bytes=2 << 20) == bytes(2 << 20)
        claim = _claim(api, box.name)
        assert "env" not in claim["spec"]
        assert claim["spec"]["lifecycle"]["shutdownPolicy"] == "Delete"
        [owner] = claim["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"]) == ("Lease", backend._pods.owner()["uid"])
        assert [one.name for one in await backend.list(labels)] == [box.name]
        assert all(one.owner_alive for one in await backend.list({}))
    assert not [one for one in _claims(api) if one["metadata"]["name"] == claim["metadata"]["name"]]
    await asyncio.to_thread(until, lambda: _gone(api, box.name))


async def test_eight_boxes_out_of_two(backend: Kubernetes, api: Api, until: Until) -> None:
    async def one(number: int) -> bytes:
        async with backend.open(SPEC) as box:
            return (await box.exec(["echo", str(number)], timeout=60)).stdout

    found = await asyncio.gather(*map(one, range(8)))
    assert found == [f"{number}\n".encode() for number in range(8)]
    assert _claims(api) == []


async def test_what_no_warm_box_can_be_is_made_as_ever(backend: Kubernetes, api: Api) -> None:
    for spec in (replace(SPEC, limits=replace(SMALL, pids=41)), replace(SPEC, key="k-1")):
        async with backend.open(spec) as box:
            assert _claims(api) == []
            assert (await box.exec(["echo", "here"])).stdout == b"here\n"


def test_processes_are_not_bounded_and_that_is_said(backend: Kubernetes) -> None:
    assert "pids" not in backend.guarantees and "no_net" in backend.guarantees
    assert "agent-sandbox" in backend.way


async def test_a_drained_pool_has_a_deadline_and_a_stage_of_its_own(
    api: Api, controller: Any, until: Until
) -> None:
    backend = _made(api, "direct", claim_s=2.0)
    controller.frozen = True
    try:
        with pytest.raises(CreateError, match="no box of the warm pool within 2 s") as error:
            await backend.create(SPEC)
    finally:
        controller.frozen = False
        backend._pods._heart.stop()
    assert error.value.stage == "queue" and "0 are ready" in str(error.value)
    assert "SandboxNotReady" in str(error.value) and _claims(api) == []


@pytest.mark.parametrize("delay", [0, 0.03, 0.3])
async def test_a_claim_that_is_cancelled_is_gone(
    backend: Kubernetes, api: Api, until: Until, delay: float
) -> None:
    making = asyncio.create_task(backend.create(SPEC))
    await asyncio.sleep(delay)
    making.cancel()
    [made] = await asyncio.gather(making, return_exceptions=True)
    if not isinstance(made, BaseException):
        await made.close()
    assert _claims(api) == []


async def test_boxes_of_claims_are_removed_by_name(
    backend: Kubernetes, api: Api, until: Until
) -> None:
    keeper = KubernetesKeeper(namespace=api.namespace)
    box = await backend.create(SPEC)
    assert await reap(keeper, {}) == [], "its driver lives"
    await keeper.remove(box.name)
    assert _claims(api) == []
    with pytest.raises(BoxDied) as died:
        await box.exec(["sleep", "60"], timeout=60)
    assert not died.value.by_agent
    await box.close()


async def test_the_time_to_live_is_that_of_the_claim(
    backend: Kubernetes, api: Api, until: Until
) -> None:
    box = await backend.create(replace(SPEC, ttl=3.0))
    await asyncio.to_thread(until, lambda: _claims(api) == [])
    await asyncio.to_thread(until, lambda: _gone(api, box.name))
    await box.close()


async def test_only_the_first_is_heard(
    backend: Kubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without an agent there is nobody to hear.
    refused = ways.Unreachable if backend.transport == "direct" else ApiFault
    monkeypatch.setattr(ways, "_HEAR_S", 2.0)
    async with backend.open(SPEC) as box:
        with pytest.raises(refused):
            await ways.introduce(backend._api, box.name, digest("another"))
        assert (await box.exec(["echo", "ours"])).stdout == b"ours\n"


async def test_all_goes_with_the_lease_of_its_driver(
    api: Api, controller: Any, until: Until
) -> None:
    backend = _made(api, "direct")
    box = await backend.create(SPEC)
    owner = backend._pods.owner()
    api.now("DELETE", f"{leases.LEASES}/{owner['name']}")
    for path in (claims.CLAIMS, claims.POOLS, claims.TEMPLATES):
        await asyncio.to_thread(until, lambda path=path: not _owned(api, path, owner["uid"]))
    await asyncio.to_thread(until, lambda: _gone(api, box.name))
    await box.close()


def test_the_drivers_account_may_do_this_and_no_more(api: Api) -> None:
    for manifest in cluster.access(api.namespace):
        group = "rbac.authorization.k8s.io/v1:" if "rbac" in manifest["apiVersion"] else ""
        api.now("POST", f"{group}{manifest['kind'].lower()}s", manifest)
    verbs = ("create", "get", "list", "patch", "update", "delete", "deletecollection")
    allowed = {
        (kind, verb)
        for kind in ("sandboxtemplates", "sandboxwarmpools", "sandboxclaims")
        for verb in verbs
        if _may(api, kind, verb)
    }
    assert allowed == {
        ("sandboxtemplates", "create"),
        *(("sandboxwarmpools", verb) for verb in ("create", "get")),
        *(("sandboxclaims", verb) for verb in ("create", "get", "delete")),
    }


def _may(api: Api, kind: str, verb: str) -> bool:
    asked = {"namespace": api.namespace, "group": claims.GROUP, "resource": kind, "verb": verb}
    user = f"system:serviceaccount:{api.namespace}:{cluster.DRIVER_ACCOUNT}"
    review = {"kind": "SubjectAccessReview", "apiVersion": "authorization.k8s.io/v1"}
    body = {**review, "spec": {"user": user, "resourceAttributes": asked}}
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    return bool(api.now("POST", path, body)["status"]["allowed"])


def _warm(api: Api) -> set[str]:
    """The boxes that wait."""
    found = api.now("GET", "pods", query={"labelSelector": f"palestra/warm,!{claims.CLAIMED_BY}"})
    return {
        pod["metadata"]["name"]
        for pod in found["items"]
        if pod["status"].get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]
    }


def _claims(api: Api) -> list[dict[str, Any]]:
    return list(api.now("GET", claims.CLAIMS)["items"])


def _claim(api: Api, pod: str) -> dict[str, Any]:
    return api.now("GET", f"{claims.CLAIMS}/{claims.claim_of(api.now('GET', f'pods/{pod}'))}")


def _owned(api: Api, path: str, uid: str) -> list[str]:
    return [
        one["metadata"]["name"]
        for one in api.now("GET", path)["items"]
        if uid in [owner["uid"] for owner in one["metadata"].get("ownerReferences", ())]
    ]


def _gone(api: Api, name: str) -> bool:
    try:
        return "deletionTimestamp" in api.now("GET", f"pods/{name}")["metadata"]
    except ApiFault as fault:
        return fault.status == 404
