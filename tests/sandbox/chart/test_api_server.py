"""A real API server (``KUBECONFIG``) takes what the chart makes, and gives the rights that it says.

Where the server does not know KubeRay or the operator of Prometheus, their kinds are stand-ins with
the fields that are used here: this proves that the objects have no others and how they are typed,
not that these operators do what we expect. Pods are tried as such, by the server's own schema.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from palestra.sandbox import kubernetes_cluster as cluster
from palestra.sandbox.kubernetes_api import Api, ApiFault

if not os.environ.get("KUBECONFIG"):
    if os.environ.get("CI") == "true" and "kubernetes" in os.environ.get("PALESTRA_REQUIRE", ""):
        pytest.fail("PALESTRA_REQUIRE names kubernetes, but KUBECONFIG is not set", pytrace=False)
    pytest.skip("KUBECONFIG is not set: no cluster to test on", allow_module_level=True)

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
FOREIGN = {"ray.io/v1", "monitoring.coreos.com/v1"}
PATIENCE_S = 60.0

Manifest = dict[str, Any]
Send = Callable[..., list[str]]


def fields(**known: Any) -> Manifest:
    return {"type": "object", "properties": known}


TEXT, COUNT, TRUTH = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}
ANYTHING = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
GROUP = {
    "rayStartParams": {"type": "object", "additionalProperties": TEXT},
    "template": ANYTHING,
}
WORKERS = fields(groupName=TEXT, replicas=COUNT, minReplicas=COUNT, maxReplicas=COUNT, **GROUP)
CLUSTER = fields(
    rayVersion=TEXT,
    authOptions=fields(mode={"enum": ["disabled", "token"], **TEXT}),
    headGroupSpec=fields(**GROUP),
    workerGroupSpecs={"type": "array", "items": WORKERS},
)
JOB = fields(
    entrypoint=TEXT,
    submissionMode={"enum": ["K8sJobMode", "HTTPMode"], **TEXT},
    backoffLimit=COUNT,
    shutdownAfterJobFinishes=TRUTH,
    rayClusterSpec=CLUSTER,
)
ENDPOINT = fields(port=TEXT, interval=TEXT)
MONITOR = fields(selector=ANYTHING, endpoints={"type": "array", "items": ENDPOINT})
KINDS = {
    "RayCluster": ("ray.io", CLUSTER),
    "RayJob": ("ray.io", JOB),
    "ServiceMonitor": ("monitoring.coreos.com", MONITOR),
}


@pytest.fixture(scope="module")
def api() -> Api:
    """The API server as KUBECONFIG knows it."""
    return Api()


@pytest.fixture(scope="module")
def home(api: Api) -> Iterator[str]:
    """A namespace for the release."""
    name = f"palestra-test-{secrets.token_hex(4)}"
    api.now("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    yield name
    api.now("DELETE", f"/api/v1/namespaces/{name}")


@pytest.fixture(scope="module")
def boxes(home: str) -> str:
    """The name of the namespace for its boxes."""
    return f"{home}-boxes"


@pytest.fixture(scope="module")
def release(api: Api, home: str, boxes: str, render: Any, send: Send) -> Iterator[list[Manifest]]:
    """All that the chart makes; namespace, accounts and rights are there."""
    found = render(home, boxes={"namespace": boxes}, monitoring={"enabled": True})
    there = ("Namespace", "ServiceAccount", "Role", "RoleBinding")
    try:
        for kind in there:
            for one in found:
                if one["kind"] == kind:
                    assert send(api, one) == []
        for place in (home, boxes):
            until(lambda place=place: account(api, place))
        yield [one for one in found if one["kind"] not in there]
    finally:
        with suppress(ApiFault):
            api.now("DELETE", f"/api/v1/namespaces/{boxes}")


@pytest.fixture(scope="module")
def version(api: Api) -> Iterator[Callable[[str], str]]:
    """For versions of foreign kinds, those that the server has: where it has none, stand-ins in
    groups of this test run, so that nobody takes them for the real ones."""
    mark, made = f"t{secrets.token_hex(4)}", []
    unknown = {one for one in FOREIGN if not served(api, one)}
    for kind, (group, schema) in KINDS.items():
        if f"{group}/v1" in unknown:
            manifest = stand_in(kind, renamed(group, mark), schema)
            api.now("POST", CRDS, manifest)
            made.append(manifest["metadata"]["name"])
    yield lambda given: renamed(given, mark) if given in unknown else given
    for name in made:
        api.now("DELETE", f"{CRDS}/{name}")


def test_the_server_takes_every_object_as_it_is(
    api: Api, release: list[Manifest], home: str, boxes: str, render: Any, version: Any, send: Send
) -> None:
    job = render(home, boxes={"namespace": boxes}, run={"recipe": "seed = 1\n"})
    release = [*release, *(one for one in job if one["kind"] in ("RayJob", "ConfigMap"))]
    for one in release:
        given = {**one, "apiVersion": version(one["apiVersion"])}
        if given["apiVersion"] != one["apiVersion"]:
            until(lambda given=given: served(api, given["apiVersion"], given["kind"]))
        assert send(api, given, dry=True) == [], one["kind"]


def test_the_server_takes_every_pod_as_it_is(
    api: Api, release: list[Manifest], home: str, pod_specs: Any, send: Send
) -> None:
    for one in release:
        for spec in pod_specs([one]):
            metadata = {"name": "dry", "namespace": one["metadata"]["namespace"]}
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
            assert send(api, pod, dry=True) == []


class As(Api):
    """Asks as another one, which an administrator may."""

    user = ""

    def headers(self) -> dict[str, str]:
        groups = {"Impersonate-Group": "system:serviceaccounts"}
        return super().headers() | {"Impersonate-User": self.user, **groups}


@pytest.fixture(scope="module")
def driver(home: str, release: list[Manifest]) -> As:
    """The API server as the driver's account knows it."""
    api = As()
    api.user = f"system:serviceaccount:{home}:{cluster.DRIVER_ACCOUNT}"
    return api


def test_the_driver_has_its_rights_among_boxes_and_none_elsewhere(
    driver: As, home: str, boxes: str
) -> None:
    [role] = [
        one
        for one in cluster.access(boxes, home=home)
        if one["kind"] == "Role" and one["metadata"]["name"] == cluster.DRIVER_ACCOUNT
    ]
    assert rules(driver, boxes) == set(triples(role["rules"]))
    assert rules(driver, home) == rules(driver, "default") == set()


@pytest.mark.parametrize(
    ("verb", "resource", "among_boxes", "allowed"),
    [
        ("create", "pods", True, True),
        ("create", "pods/exec", True, True),
        ("delete", "pods", True, True),
        ("deletecollection", "pods", True, False),
        ("update", "pods", True, False),
        ("watch", "pods", True, False),
        ("get", "secrets", True, False),
        ("create", "serviceaccounts/token", True, False),
        ("create", "pods", False, False),
        ("get", "secrets", False, False),
        ("get", "configmaps", False, False),
    ],
)
def test_the_server_decides_by_them(
    driver: As, home: str, boxes: str, verb: str, resource: str, among_boxes: bool, allowed: bool
) -> None:
    name, _, sub = resource.partition("/")
    asked = {"namespace": boxes if among_boxes else home, "verb": verb}
    asked |= {"resource": name, "subresource": sub}
    review = {"spec": {"resourceAttributes": asked}, "kind": "SelfSubjectAccessReview"}
    review["apiVersion"] = "authorization.k8s.io/v1"
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    assert driver.now("POST", path, review)["status"]["allowed"] is allowed


def rules(api: Api, place: str) -> set[tuple[str, str, str]]:
    """What an account may do in a namespace, but for asking what it may."""
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview"}
    path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
    found = api.now("POST", path, {**review, "spec": {"namespace": place}})["status"]
    assert found["incomplete"] is False
    return {one for one in triples(found["resourceRules"]) if one[0] != "authorization.k8s.io"}


def triples(found: Iterable[Manifest]) -> Iterator[tuple[str, str, str]]:
    for rule in found:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                yield from ((group, resource, verb) for verb in rule["verbs"])


def served(api: Api, version: str, kind: str = "") -> bool:
    """Whether the server has these, and the kind if one is named."""
    try:
        found = api.now("GET", f"/apis/{version}")["resources"]
    except ApiFault as fault:
        if fault.status == 404:
            return False
        raise
    return not kind or kind in [one["kind"] for one in found]


def renamed(group: str, mark: str) -> str:
    """A group of nobody else, with the version that follows its name, if any."""
    name, slash, version = group.partition("/")
    return f"{mark}.{name}.example{slash}{version}"


def stand_in(kind: str, group: str, schema: Manifest) -> Manifest:
    plural = f"{kind.lower()}s"
    version = {"name": "v1", "served": True, "storage": True}
    version["schema"] = {"openAPIV3Schema": fields(spec=schema)}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "names": {
                "kind": kind,
                "plural": plural,
                "singular": kind.lower(),
                "listKind": f"{kind}List",
            },
            "scope": "Namespaced",
            "versions": [version],
        },
    }


def account(api: Api, place: str) -> bool:
    """Whether the default account of a namespace is there, without which there are no Pods."""
    with suppress(ApiFault):
        return bool(api.now("GET", f"/api/v1/namespaces/{place}/serviceaccounts/default"))
    return False


def until(true: Callable[[], bool]) -> None:
    """Wait for it."""
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)
