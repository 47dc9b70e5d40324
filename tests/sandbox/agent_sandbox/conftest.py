"""A stand-in for agent-sandbox on a real API server: its kinds, without their schemas, and what its
controllers do for a warm pool, a claim and the end of one.

What is left out: the Sandbox between a claim and its Pod, network policies, defaults, conditions
other than ``Ready``.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import pytest

from palestra.sandbox import kubernetes_claims as claims
from palestra.sandbox import kubernetes_cluster as cluster
from palestra.sandbox import kubernetes_status as status
from palestra.sandbox.kubernetes_api import Api, ApiFault
from palestra.sandbox.kubernetes_lease import when

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
KINDS = ("SandboxTemplate", "SandboxWarmPool", "SandboxClaim")
_POOL = "test/pool"
PATIENCE_S = 90.0


@pytest.fixture(scope="session")
def api() -> Iterator[Api]:
    """A namespace of this test run, in a cluster with the kinds of agent-sandbox."""
    if not os.environ.get("KUBECONFIG"):
        required = "kubernetes" in os.environ.get("PALESTRA_REQUIRE", "")
        (pytest.fail if required else pytest.skip)("KUBECONFIG is not set: no cluster")
    name, admin = f"palestra-test-{secrets.token_hex(4)}", Api()
    admin.now("POST", "/api/v1/namespaces", cluster.namespace(name))
    until(lambda: _there(admin, f"/api/v1/namespaces/{name}/serviceaccounts/default"))
    found = Api(namespace=name)
    with installed(found):
        yield found
        admin.now("DELETE", f"/api/v1/namespaces/{name}")


@pytest.fixture(scope="session")
def controller(api: Api) -> Iterator[Controller]:
    """What reconciles it."""
    with Controller(api) as found:
        yield found


@pytest.fixture(name="until", scope="session")
def _until() -> Callable[[Callable[[], object]], None]:
    """Waits for a condition."""
    return until


@contextmanager
def installed(api: Api) -> Iterator[None]:
    """The kinds, served and known to the garbage collector; those that were not there are removed
    afterwards."""
    made = [kind for kind in KINDS if _define(api, kind)]
    until(lambda: claims.installed(api))
    until(lambda: _collected(api))
    yield
    for kind in made:
        api.now("DELETE", f"{DEFINITIONS}/{kind.lower()}s.{claims.GROUP}")


class Controller:
    """Reconciles one namespace in a thread; ``frozen`` makes no more boxes ready."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.frozen = False

    def __enter__(self) -> Controller:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.05):
            # What is removed meanwhile is looked at again.
            with suppress(ApiFault):
                self._reconcile()

    def _reconcile(self) -> None:
        spare: dict[str, list[dict[str, Any]]] = {}
        for pod in self._listed("pods"):
            if _POOL in pod["metadata"].get("labels", {}) and not status.leaving(pod):
                spare.setdefault(pod["metadata"]["labels"][_POOL], []).append(pod)
        for claim in self._listed(claims.CLAIMS):
            self._serve(claim, spare)
        for pool in self._listed(claims.POOLS):
            self._fill(pool, spare.get(status.name(pool), []))

    def _serve(self, claim: dict[str, Any], spare: dict[str, list[dict[str, Any]]]) -> None:
        if "deletionTimestamp" in claim["metadata"]:
            return
        lifecycle = claim["spec"]["lifecycle"]
        if datetime.now(UTC) > when(lifecycle["shutdownTime"]):
            assert lifecycle["shutdownPolicy"] == "Delete"
            self._api.now("DELETE", f"{claims.CLAIMS}/{status.name(claim)}")
            return
        if claims.ready(claim):
            return
        pods = spare.get(claim["spec"]["warmPoolRef"]["name"], [])
        found = next((pod for pod in pods if status.running(pod)), None)
        if found is None:
            self._told(claim, "False", "SandboxNotReady", {})
            return
        pods.remove(found)
        self._given(claim, found)

    def _given(self, claim: dict[str, Any], pod: dict[str, Any]) -> None:
        """As an adoption: owner and labels of the pool make way for those of the claim."""
        more = claim["spec"]["additionalPodMetadata"]
        had = pod["metadata"]["labels"]
        assert all(had.get(name, value) == value for name, value in more["labels"].items())
        owner = {
            "apiVersion": claims.VERSION,
            "kind": "SandboxClaim",
            "name": status.name(claim),
            "uid": status.uid(claim),
            "controller": True,
        }
        labels = {**more["labels"], _POOL: None, claims.CLAIMED_BY: status.uid(claim)}
        owners = [{"$patch": "replace"}, owner]
        metadata = {"labels": labels, "annotations": more["annotations"], "ownerReferences": owners}
        self._api.now("PATCH", f"pods/{status.name(pod)}", {"metadata": metadata})
        sandbox = {"name": status.name(pod), "podIPs": [pod["status"]["podIP"]]}
        self._told(claim, "True", "DependenciesReady", sandbox)

    def _told(self, claim: Mapping[str, Any], ready: str, why: str, box: dict[str, Any]) -> None:
        condition = {"type": "Ready", "status": ready, "reason": why, "message": "as it is"}
        body = {"status": {"conditions": [condition], "sandbox": box}}
        self._api.now("PATCH", f"{claims.CLAIMS}/{status.name(claim)}/status", body)

    def _fill(self, pool: dict[str, Any], pods: list[dict[str, Any]]) -> None:
        ready = sum(map(status.running, pods))
        name = status.name(pool)
        if pool.get("status", {}).get("readyReplicas", 0) != ready:
            body = {"status": {"readyReplicas": ready, "replicas": len(pods)}}
            self._api.now("PATCH", f"{claims.POOLS}/{name}/status", body)
        if self.frozen or len(pods) >= pool["spec"]["replicas"]:
            return
        reference = pool["spec"]["sandboxTemplateRef"]["name"]
        template = self._api.now("GET", f"{claims.TEMPLATES}/{reference}")["spec"]["podTemplate"]
        owner = {"apiVersion": claims.VERSION, "kind": "SandboxWarmPool", "name": name}
        metadata = {
            "generateName": f"{name}-",
            "labels": {**template["metadata"]["labels"], _POOL: name},
            "ownerReferences": [{**owner, "uid": status.uid(pool), "controller": True}],
        }
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
        self._api.now("POST", "pods", pod)

    def _listed(self, path: str) -> list[dict[str, Any]]:
        return list(self._api.now("GET", path)["items"])


def _define(api: Api, kind: str) -> bool:
    """Whether the kind was not there and is now."""
    names = {"kind": kind, "plural": f"{kind.lower()}s", "singular": kind.lower()}
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {
        "name": claims.VERSION.partition("/")[2],
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
    }
    body = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{names['plural']}.{claims.GROUP}",
            "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"},
        },
        "spec": {
            "group": claims.GROUP,
            "scope": "Namespaced",
            "names": names,
            "versions": [version],
        },
    }
    try:
        api.now("POST", DEFINITIONS, body)
    except ApiFault as fault:
        if fault.status == 409:
            return False
        raise
    return True


def _collected(api: Api) -> bool:
    """Whether what belongs to a claim goes with it: the collector learns of new kinds late."""
    metadata = {"generateName": "known-"}
    claim = {"apiVersion": claims.VERSION, "kind": "SandboxClaim", "metadata": metadata, "spec": {}}
    made = api.now("POST", claims.CLAIMS, claim)
    kind = {"apiVersion": claims.VERSION, "kind": "SandboxClaim"}
    owner = {**kind, "name": status.name(made), "uid": status.uid(made)}
    map_ = {"metadata": {**metadata, "ownerReferences": [owner]}}
    left = status.name(api.now("POST", "configmaps", map_))
    api.now("DELETE", f"{claims.CLAIMS}/{status.name(made)}")
    for _ in range(20):
        time.sleep(0.1)
        try:
            api.now("GET", f"configmaps/{left}")
        except ApiFault:
            return True
    return False


def _there(api: Api, path: str) -> bool:
    with suppress(ApiFault):
        return bool(api.now("GET", path))
    return False


def until(condition: Callable[[], object]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)
