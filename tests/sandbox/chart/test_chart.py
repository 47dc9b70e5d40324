"""What the chart makes of its values, without a cluster."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from palestra.deploy.cli import build_parser
from palestra.deploy.config_file import load_recipe
from palestra.sandbox import kubernetes_cluster as cluster
from palestra.sandbox.kubernetes_injection import DRIVES, PORT
from palestra.sandbox.kubernetes_pod import BOX

ROOT = Path(__file__).parents[3]
RECIPE = (ROOT / "recipes/tiny.toml").read_text()
DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
CASES: dict[str, dict[str, Any]] = {
    "cluster": {},
    "job": {"run": {"recipe": RECIPE, "name": "tiny", "retries": 2}},
    "cpu": {"workers": {"gpus": 0}},
    "monitored": {"monitoring": {"enabled": True}},
    "their claim": {"runs": {"claim": "theirs"}},
    "open": {"network": {"egress": [{"ports": [{"protocol": "TCP", "port": 443}]}]}},
}

Manifest = dict[str, Any]
Render = Callable[..., list[Manifest]]
Ask = Callable[[dict[str, Any], str], dict[str, Any]]
Ray = Callable[[Iterable[Manifest]], list[Manifest]]


@pytest.mark.parametrize("values", CASES.values(), ids=CASES)
def test_all_is_named_once_in_one_of_two_namespaces(values: dict[str, Any], render: Render) -> None:
    found = render(**values)
    names = [
        (one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in found
    ]
    assert len(names) == len(set(names))
    assert {place for _, place, _ in names} == {"palestra", "palestra-boxes", None}
    assert [kind for kind, place, _ in names if place is None] == ["Namespace"]


@pytest.mark.parametrize("boxes", [1, 64, 1000])
def test_the_boxes_get_what_they_get_without_the_chart(boxes: int, render: Render) -> None:
    image = "registry.example/boxes@sha256:" + "c" * 64
    given = {"namespace": "theirs", "image": image, "atOnce": boxes}
    ours = [
        one
        for one in render(boxes=given)
        if one["metadata"].get("namespace") == "theirs"
        or (one["kind"], one["metadata"]["name"]) == ("Namespace", "theirs")
        or one["kind"] == "ServiceAccount"
    ]
    files = cluster.files("theirs", image=image, boxes=boxes, home="palestra").values()
    key: Callable[[Manifest], str] = lambda one: json.dumps(one, sort_keys=True)  # noqa: E731
    assert sorted(ours, key=key) == sorted((one for some in files for one in some), key=key)


@pytest.mark.parametrize("values", CASES.values(), ids=CASES)
def test_every_pod_meets_the_restricted_level(
    values: dict[str, Any],
    render: Render,
    pod_specs: Callable[[Iterable[Manifest]], Iterator[Manifest]],
    breaches: Callable[[Manifest], Iterable[str]],
) -> None:
    specs = list(pod_specs(render(**values)))
    assert len(specs) == 4, "head, workers, reaper, prepull"
    for spec in specs:
        assert list(breaches(spec)) == []
        for one in spec["containers"]:
            assert DIGEST.search(one["image"])
            assert one["securityContext"]["readOnlyRootFilesystem"] is True
            assert one["resources"]["requests"] == one["resources"]["limits"]


def test_only_the_driver_is_let_in_and_has_a_token(render: Render, ray: Ray) -> None:
    groups = ray(render())
    assert [DRIVES in one["metadata"]["labels"] for one in groups] == [True, False]
    assert [one["spec"]["automountServiceAccountToken"] for one in groups] == [True, False]
    assert [one["spec"].get("serviceAccountName") for one in groups] == [
        cluster.DRIVER_ACCOUNT,
        None,
    ]


def test_ray_reaches_itself_and_the_driver_boxes_and_the_api_server(
    render: Render, ray: Ray
) -> None:
    found = render(monitoring={"enabled": True})
    policies = {
        one["metadata"]["name"]: one["spec"]
        for one in found
        if one["kind"] == "NetworkPolicy" and one["metadata"]["namespace"] == "palestra"
    }
    whole, driver = policies.pop("demo-ray"), policies.pop("demo-driver")
    assert not policies
    labels = whole["podSelector"]["matchLabels"]
    head, workers = (one["metadata"]["labels"] for one in ray(found))
    assert labels.items() <= head.items() and labels.items() <= workers.items()
    assert driver["podSelector"]["matchLabels"].items() <= head.items()
    assert not driver["podSelector"]["matchLabels"].items() <= workers.items()
    assert [ports(rule) for rule in whole["ingress"]] == [[], [8265], [8080]]
    assert all(set(peer) <= {"podSelector", "namespaceSelector"} for peer in peers(whole))
    assert [ports(rule) for rule in whole["egress"]] == [[], [53, 53]]
    assert [ports(rule) for rule in driver["egress"]] == [[443, 6443], [PORT]]
    assert driver["policyTypes"] == ["Egress"] and whole["policyTypes"] == ["Ingress", "Egress"]
    # Both in one entry: in two, either of them would be enough.
    [boxes] = driver["egress"][1]["to"]
    assert boxes["podSelector"] == {"matchLabels": {BOX: "1"}}
    assert boxes["namespaceSelector"]["matchLabels"] == {
        "kubernetes.io/metadata.name": "palestra-boxes"
    }


def test_the_job_is_a_command_that_palestra_takes(render: Render, ray: Ray, tmp_path: Path) -> None:
    odd = RECIPE + '# {{ .Values.image }} "quoted" \\ é\n'
    found = {one["kind"]: one for one in render(run={"recipe": odd, "name": "tiny", "retries": 2})}
    job, text = found["RayJob"]["spec"], found["ConfigMap"]["data"]["recipe.toml"]
    assert text == odd and job["backoffLimit"] == 2 and "RayCluster" not in found
    program, *words = shlex.split(job["entrypoint"])
    args = build_parser().parse_args(words)
    assert program == "palestra" and args.command == "train"
    assert (args.recipe, args.run) == ("/etc/palestra/recipe.toml", "/runs/tiny")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(text)
    sandbox = load_recipe(str(recipe), args.set).config.sandbox
    assert (sandbox.backend, sandbox.kubernetes.namespace) == ("kubernetes", "palestra-boxes")
    assert DIGEST.search(sandbox.image)
    for group in ray(list(found.values())):
        mounts = {
            one["name"]: one["mountPath"] for one in group["spec"]["containers"][0]["volumeMounts"]
        }
        assert (mounts["recipe"], mounts["runs"]) == ("/etc/palestra", "/runs")
        assert set(mounts) == {one["name"] for one in group["spec"]["volumes"]}


def test_workers_have_their_gpus_and_the_head_no_place_for_actors(render: Render) -> None:
    for gpus in (0, 4):
        found = render(workers={"gpus": gpus, "count": 3})
        [cluster_spec] = [one["spec"] for one in found if one["kind"] == "RayCluster"]
        [group] = cluster_spec["workerGroupSpecs"]
        assert {group["replicas"], group["minReplicas"], group["maxReplicas"]} == {3}
        asked = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert asked.get("nvidia.com/gpu", "0") == str(gpus)
        assert cluster_spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        assert cluster_spec["authOptions"] == {"mode": "token"}


def test_ray_is_the_version_that_is_installed(render: Render) -> None:
    [version] = {one["spec"]["rayVersion"] for one in render() if one["kind"] == "RayCluster"}
    locks = [(ROOT / f"requirements/{name}.lock").read_text() for name in ("cpu", "gpu")]
    assert all(f"\nray=={version}\n" in text for text in locks)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"image": ""}, "/image"),
        ({"image": "registry.example/palestra:latest"}, "/image"),
        ({"boxes": {"image": "python:3.12"}}, "/boxes/image"),
        ({"boxes": {"namespace": "palestra"}}, "boxes.namespace"),
        ({"boxes": {"atOnce": 0}}, "/boxes/atOnce"),
        ({"run": {"name": "../else"}}, "/run/name"),
        ({"run": {"name": "a; true"}}, "/run/name"),
        ({"runs": {"accessMode": "ReadOnlyMany"}}, "/runs/accessMode"),
        ({"workers": {"gpu": 8}}, "gpu"),
        ({"worker": {}}, "worker"),
        ({"monitoring": {"enabled": "yes"}}, "/monitoring/enabled"),
    ],
)
def test_a_bad_value_is_refused_by_name(values: dict[str, Any], named: str, ask: Ask) -> None:
    good = {"image": "a/b@sha256:" + "a" * 64, "boxes": {"image": "a/b@sha256:" + "b" * 64}}
    boxes = {**good["boxes"], **values.pop("boxes", {})}  # type: ignore[dict-item]
    assert named in ask({**good, "boxes": boxes, **values}, "palestra").get("error", "")


def ports(rule: Manifest) -> list[int]:
    return [one["port"] for one in rule.get("ports", ())]


def peers(policy: Manifest) -> list[Manifest]:
    return [one for rule in policy["ingress"] for one in rule["from"]]
