"""How the Pod of a box is to be: pure functions from a ``BoxSpec`` to what the API server is told.

The Pod meets the Pod Security level "restricted" and leaves nothing to defaults of a cluster that
could be weaker somewhere else. Its first process is the supervisor (``inbox``), reached over the
API server or through an agent beside it (``kubernetes_injection``): no token, no volume of the
cluster, no service account, no environment.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

from palestra.sandbox.base import BoxSpec, Found, work_folder
from palestra.sandbox.kubernetes_injection import injected
from palestra.sandbox.link import BOOT

BOX, EXPIRES = "palestra/box", "palestra/expires-at"
SHAPE, LABELS = "palestra/shape", "palestra/labels"
CONTAINER = "box"
ARCHITECTURES: Mapping[str, str] = {"x86_64": "amd64", "aarch64": "arm64"}
"""Kubernetes' names of machines, by those of ``platform.machine``."""

_START_S = 300
_LOGS = 256 << 20
_FIRST_USER, _USERS = 1_000_000_000, 1_000_000_000
_SAFE_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
_SAFE_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


class Plan(NamedTuple):
    """What a Pod is made of. ``image`` is its full name, ``cpus`` a number of processors
    and ``reserve`` the share of them that is kept for it alone, ``machine`` the architecture of the
    node; ``runtime`` (a RuntimeClass), ``account`` (a service account, whose token the box never
    gets) and ``priority`` (a PriorityClass) may be empty. With ``digest``, that of its driver's
    token, the box has an agent."""

    spec: BoxSpec
    image: str
    pull: str = "never"
    cpus: float = 1.0
    reserve: float = 1.0
    machine: str = "x86_64"
    runtime: str = ""
    account: str = ""
    priority: str = ""
    digest: str = ""


def command(seconds: float) -> list[str]:
    """The supervisor: isolated from the image's Python settings, at the latest ``seconds`` long."""
    return ["python3", "-I", "-S", "-X", "utf8", "-c", BOOT, str(int(seconds) + 1)]


def user(name: str) -> int:
    """The user and group of the box ``name``. No two boxes share one, so that a count of processes
    per user is one per box, and what escaped could not even signal its neighbour."""
    return _FIRST_USER + int(hashlib.sha256(name.encode()).hexdigest()[:12], 16) % _USERS


def pod(name: str, plan: Plan, *, owners: list[dict[str, Any]], now: float) -> dict[str, Any]:
    """The manifest of the box ``name``; ``owners`` are owner references, ``now`` Unix seconds."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "ownerReferences": owners, **marks(plan, now)},
        "spec": pod_spec(name, plan),
    }


def marks(plan: Plan, now: float) -> dict[str, dict[str, str]]:
    """Labels and annotations by which a Pod is known for a box."""
    spec = plan.spec
    labels = {BOX: "1", EXPIRES: f"{now + spec.ttl:.0f}", SHAPE: shape(plan)}
    told = {LABELS: json.dumps(dict(spec.labels), sort_keys=True)}
    return {"labels": {**labels, **selectors(spec.labels)}, "annotations": told}


def pod_spec(name: str, plan: Plan) -> dict[str, Any]:
    """What runs, as whom, with how much."""
    number = user(name)
    optional = {
        "runtimeClassName": plan.runtime,
        "serviceAccountName": plan.account,
        "priorityClassName": plan.priority,
    }
    spec = {
        "activeDeadlineSeconds": math.ceil(plan.spec.ttl) + _START_S,
        "automountServiceAccountToken": False,
        "containers": [container(plan)],
        # No name is resolved: the only server is the box itself, where nobody listens.
        "dnsPolicy": "None",
        "dnsConfig": {"nameservers": ["127.0.0.1"]},
        "enableServiceLinks": False,
        "hostIPC": False,
        "hostNetwork": False,
        "hostPID": False,
        "hostname": "box",
        "nodeSelector": {
            "kubernetes.io/arch": ARCHITECTURES[plan.machine],
            "kubernetes.io/os": "linux",
        },
        "restartPolicy": "Never",
        "securityContext": {
            "fsGroup": number,
            "runAsGroup": number,
            "runAsNonRoot": True,
            "runAsUser": number,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "shareProcessNamespace": False,
        "terminationGracePeriodSeconds": 1,
        "volumes": [
            {"name": volume, "emptyDir": {"medium": "Memory", "sizeLimit": str(size)}}
            for volume, (_, size) in _folders(plan.spec).items()
        ],
        **{key: value for key, value in optional.items() if value},
    }
    return injected(spec, plan.digest) if plan.digest else spec


def container(plan: Plan) -> dict[str, Any]:
    """The container of the box. What it may use is reserved for it, so that no box lives off its
    neighbours, but for processors where they are shared on purpose."""
    limits = {
        "cpu": f"{round(plan.cpus * 1000)}m",
        "memory": str(plan.spec.limits.memory),
        # All that it can write to the node's disk is what its supervisor says, which is logged.
        "ephemeral-storage": str(_LOGS),
    }
    requests = {**limits, "cpu": f"{max(1, round(plan.cpus * plan.reserve * 1000))}m"}
    return {
        "name": CONTAINER,
        "image": plan.image,
        "imagePullPolicy": {"never": "Never", "missing": "IfNotPresent"}[plan.pull],
        "command": command(plan.spec.ttl + _START_S),
        "args": [],
        "env": [],
        "workingDir": "/",
        "stdin": True,
        # The end of our connection is the end of its input: it learns at once that we are gone.
        "stdinOnce": True,
        "tty": False,
        "resources": {"requests": requests, "limits": limits},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
            "procMount": "Default",
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
        },
        "volumeMounts": [
            {"name": volume, "mountPath": path} for volume, (path, _) in _folders(plan.spec).items()
        ],
    }


def selectors(labels: Mapping[str, str]) -> dict[str, str]:
    """Labels of the Pod for those of a ``BoxSpec``: what cannot be a label stands as its hash."""
    return {
        f"palestra.box/{_fitting(name, _SAFE_NAME)}": _fitting(value, _SAFE_VALUE)
        for name, value in labels.items()
    }


def shape(plan: Plan) -> str:
    """Equal for boxes that may stand for each other: same image, folder, limits and runtime."""
    facts = [
        plan.image,
        [plan.spec.folder, *plan.spec.scratch],
        asdict(plan.spec.limits),
        plan.cpus,
        plan.runtime,
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def told(found: Mapping[str, Any]) -> dict[str, str]:
    """The labels of the ``BoxSpec`` that a Pod was made for."""
    text = found["metadata"].get("annotations", {}).get(LABELS, "{}")
    return {str(name): str(value) for name, value in json.loads(text).items()}


def listed(found: Mapping[str, Any], *, age_s: float, owner_alive: bool, now: float) -> Found:
    """A Pod as ``Keeper.list`` tells of it."""
    metadata = found["metadata"]
    return Found(
        name=metadata["name"],
        labels=told(found),
        age_s=age_s,
        owner_alive=owner_alive,
        expired=now >= float(metadata["labels"].get(EXPIRES, "inf")),
    )


def _folders(spec: BoxSpec) -> dict[str, tuple[str, int]]:
    """Folders that can be written to: in memory, of which they leave a quarter to processes, and
    an eighth less for each of ``scratch``."""
    memory = spec.limits.memory
    return {
        "work": (work_folder(spec), memory * 3 // 8),
        "tmp": ("/tmp", min(spec.limits.tmp, memory // 4)),
        "shm": ("/dev/shm", memory // 8),
        **{f"scratch-{n}": (path, memory // 8) for n, path in enumerate(spec.scratch)},
    }


def _fitting(text: str, pattern: re.Pattern[str]) -> str:
    if pattern.fullmatch(text):
        return text
    return "sha-" + hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:32]
