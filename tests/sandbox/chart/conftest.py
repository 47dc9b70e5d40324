"""The chart of deploy/k8s as Helm renders it."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
CHART = ROOT / "deploy/k8s/chart"
IMAGE = "registry.example/palestra@sha256:" + "a" * 64
BOXES = "registry.example/library/python@sha256:" + "b" * 64
VALUES: dict[str, Any] = {"image": IMAGE, "boxes": {"image": BOXES}}

Manifest = dict[str, Any]
Ask = Callable[[dict[str, Any], str], dict[str, Any]]
Render = Callable[..., list[Manifest]]


@pytest.fixture(scope="session")
def ask() -> Iterator[Ask]:
    """What Helm answers to these values, beside the chart's own, and the release's namespace."""
    command = [sys.executable, str(Path(__file__).with_name("helm.py")), str(CHART)]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as helm:
        assert helm.stdin and helm.stdout
        to, back = helm.stdin, helm.stdout

        @functools.cache
        def answered(line: str) -> dict[str, Any]:
            to.write(line)
            to.flush()
            return dict(json.loads(back.readline()))

        yield lambda *given: answered(json.dumps(given) + "\n")


@pytest.fixture(scope="session")
def render(ask: Ask) -> Render:
    """The manifests for these values, beside those that have to be given."""

    def rendered(namespace: str = "palestra", **values: Any) -> list[Manifest]:
        boxes = {**VALUES["boxes"], **values.pop("boxes", {})}
        answer = ask({**VALUES, "boxes": boxes, **values}, namespace)
        assert "error" not in answer, answer["error"]
        assert answer["findings"] == []
        documents = [yaml.safe_load_all(text) for text in answer["files"].values()]
        return [one for some in documents for one in some if one]

    return rendered


@pytest.fixture(scope="session")
def pod_specs() -> Callable[[Iterable[Manifest]], Iterator[Manifest]]:
    """Finds what Pods are made of, of every object that makes some."""
    return _pod_specs


@pytest.fixture(scope="session")
def ray() -> Callable[[Iterable[Manifest]], list[Manifest]]:
    """Finds the templates of head and workers."""
    return _ray


def _pod_specs(found: Iterable[Manifest]) -> Iterator[Manifest]:
    for one in found:
        match one["kind"]:
            case "RayCluster" | "RayJob":
                yield from (group["spec"] for group in _ray([one]))
            case "CronJob":
                yield one["spec"]["jobTemplate"]["spec"]["template"]["spec"]
            case "DaemonSet":
                yield one["spec"]["template"]["spec"]


def _ray(found: Iterable[Manifest]) -> list[Manifest]:
    [spec] = [one["spec"] for one in found if one["kind"] in ("RayCluster", "RayJob")]
    spec = spec.get("rayClusterSpec", spec)
    [workers] = spec["workerGroupSpecs"]
    return [spec["headGroupSpec"]["template"], workers["template"]]
