"""What a cluster needs before boxes are made in it: pure functions to manifests.

``deploy/k8s`` holds what these give for the namespace ``palestra``, and its chart what they give
for any; tests compare them.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

from palestra.sandbox import kubernetes_reaper
from palestra.sandbox.images import full_name
from palestra.sandbox.kubernetes_injection import CPUS, MEMORY, agent_ingress
from palestra.sandbox.kubernetes_pod import BOX

DRIVER_ACCOUNT, REAPER_ACCOUNT = "palestra-driver", "palestra-reaper"

_LEVELS = ("enforce", "audit", "warn")
_USER = 10001
_SMALL = {"cpu": "50m", "memory": "64Mi", "ephemeral-storage": "16Mi"}
_WARM = "extensions.agents.x-k8s.io"
_LEASES = ["coordination.k8s.io"], ["leases"]

Manifest = dict[str, Any]


def namespace(name: str) -> Manifest:
    """A namespace for boxes alone, in which every Pod must meet the level "restricted"."""
    labels = {f"pod-security.kubernetes.io/{level}": "restricted" for level in _LEVELS}
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": labels},
    }


def network_policy(name: str) -> Manifest:
    """Nothing in, nothing out. Over the API server and their node boxes are reached all the same,
    which policies do not concern on most clusters."""
    return _object(
        "networking.k8s.io/v1",
        "NetworkPolicy",
        "palestra-nothing",
        name,
        spec={"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [], "egress": []},
    )


def agent_network(name: str) -> Manifest:
    """Drivers may speak to the agents of boxes."""
    return _object(
        "networking.k8s.io/v1",
        "NetworkPolicy",
        "palestra-agents",
        name,
        spec={
            "podSelector": {"matchLabels": {BOX: "1"}},
            "policyTypes": ["Ingress"],
            "ingress": [agent_ingress()],
        },
    )


def quota(name: str, *, boxes: int, cpus: float = 1.0, memory_gib: float = 2.0) -> Manifest:
    """Room for so many boxes, each with ``cpus`` processors and ``memory_gib`` GiB, and their
    agents; also a bound for a driver that would make more than was planned."""
    cpu = f"{round(boxes * (cpus + CPUS) * 1000)}m"
    memory = f"{round(boxes * (memory_gib * 1024 + (MEMORY >> 20)))}Mi"
    hard = {"pods": str(boxes + 2), "services": "0", "persistentvolumeclaims": "0"}
    for side in ("requests", "limits"):
        hard |= {f"{side}.cpu": cpu, f"{side}.memory": memory}
        hard[f"{side}.ephemeral-storage"] = f"{boxes * (256 + 16) + 64}Mi"
    return _object("v1", "ResourceQuota", "palestra-boxes", name, spec={"hard": hard})


def limit_range(name: str, *, cpus: float = 4.0, memory_gib: float = 16.0) -> Manifest:
    """The most that one box may ask for, and what a Pod gets that asks for nothing."""
    most = {"cpu": f"{round(cpus * 1000)}m", "memory": f"{round(memory_gib * 1024)}Mi"}
    limits = {"type": "Container", "max": most, "default": _SMALL, "defaultRequest": _SMALL}
    return _object("v1", "LimitRange", "palestra-boxes", name, spec={"limits": [limits]})


def access(name: str, *, home: str = "") -> list[Manifest]:
    """Accounts for a driver, in its own namespace ``home`` (empty: this one), and for the reaper:
    no more than what they do in this namespace, and nothing anywhere else."""
    driver = [
        _rule([""], ["pods"], ["create", "get", "list", "patch", "delete"]),
        # Clients open websockets with GET; newer API servers ask for "create" all the same.
        _rule([""], ["pods/attach", "pods/exec"], ["get", "create"]),
        # GET, POST and DELETE to the agent of a box, where it is not reached directly.
        _rule([""], ["pods/proxy"], ["get", "create", "delete"]),
        _rule([""], ["events"], ["list"]),
        # Where agent-sandbox is installed: a pool of its own, and boxes out of it.
        _rule([_WARM], ["sandboxtemplates"], ["create"]),
        _rule([_WARM], ["sandboxwarmpools"], ["create", "get"]),
        _rule([_WARM], ["sandboxclaims"], ["create", "get", "delete"]),
        _rule(*_LEASES, ["create", "get", "list", "patch", "delete"]),
    ]
    reaper = [_rule(*_LEASES, ["list", "delete"])]
    found = []
    for account, place, rules in (
        (DRIVER_ACCOUNT, home or name, driver),
        (REAPER_ACCOUNT, name, reaper),
    ):
        subject = {"kind": "ServiceAccount", "name": account, "namespace": place}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": account}
        rbac = "rbac.authorization.k8s.io/v1"
        found += [
            _object("v1", "ServiceAccount", account, place, automountServiceAccountToken=False),
            _object(rbac, "Role", account, name, rules=rules),
            _object(rbac, "RoleBinding", account, name, subjects=[subject], roleRef=role),
        ]
    return found


def reaper(name: str, *, image: str) -> Manifest:
    """Every other minute, remove Leases of dead drivers; ``image`` is any with a ``python3``."""
    program = inspect.getsource(kubernetes_reaper)
    job = {
        "backoffLimit": 0,
        "activeDeadlineSeconds": 100,
        "template": {
            "metadata": {"labels": {"palestra/reaper": "1"}},
            "spec": {
                **_restricted(REAPER_ACCOUNT),
                "automountServiceAccountToken": True,
                "restartPolicy": "Never",
                "containers": [_contained("reaper", image, ["python3", "-c", program, name])],
            },
        },
    }
    spec = {
        "schedule": "*/2 * * * *",
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": 60,
        "successfulJobsHistoryLimit": 1,
        "failedJobsHistoryLimit": 1,
        "jobTemplate": {"spec": job},
    }
    return _object("batch/v1", "CronJob", "palestra-reaper", name, spec=spec)


def reaper_network(name: str) -> Manifest:
    """The reaper may speak to the API server, whose address a policy cannot name: to TLS ports."""
    ports = [{"protocol": "TCP", "port": port} for port in (443, 6443)]
    ports += [{"protocol": kind, "port": 53} for kind in ("UDP", "TCP")]
    return _object(
        "networking.k8s.io/v1",
        "NetworkPolicy",
        "palestra-reaper",
        name,
        spec={
            "podSelector": {"matchLabels": {"palestra/reaper": "1"}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [],
            "egress": [{"ports": ports}],
        },
    )


def prepull(name: str, images: Iterable[str]) -> Manifest:
    """A Pod per node that has every image pulled before the first box needs it, and keeps it."""
    sleeper = ["python3", "-c", "import signal; signal.pause()"]
    labels = {"palestra/prepull": "1"}
    template = {
        "metadata": {"labels": labels},
        "spec": {
            **_restricted("default"),
            "terminationGracePeriodSeconds": 1,
            "containers": [
                _contained(f"image-{number}", image, sleeper) for number, image in enumerate(images)
            ],
        },
    }
    update = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "100%"}}
    selector = {"matchLabels": labels}
    spec = {"selector": selector, "updateStrategy": update, "template": template}
    return _object("apps/v1", "DaemonSet", "palestra-prepull", name, spec=spec)


def files(name: str, *, image: str, boxes: int, home: str = "") -> dict[str, list[Manifest]]:
    """The manifests of ``deploy/k8s`` by file name, in the order to apply them; ``home`` is the
    namespace of the driver where that is another one."""
    return {
        "namespace.yaml": [namespace(name)],
        "network.yaml": [network_policy(name), agent_network(name), reaper_network(name)],
        "limits.yaml": [quota(name, boxes=boxes), limit_range(name)],
        "rbac.yaml": access(name, home=home),
        "reaper.yaml": [reaper(name, image=image)],
        "prepull.yaml": [prepull(name, [image])],
    }


def _restricted(account: str) -> dict[str, Any]:
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "serviceAccountName": account,
        "securityContext": {
            "runAsGroup": _USER,
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }


def _contained(name: str, image: str, command: list[str]) -> dict[str, Any]:
    return {
        "name": name,
        "image": full_name(image),
        "imagePullPolicy": "IfNotPresent",
        "command": command,
        "resources": {"requests": _SMALL, "limits": _SMALL},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
    }


def _rule(groups: list[str], resources: list[str], verbs: list[str]) -> dict[str, Any]:
    return {"apiGroups": groups, "resources": resources, "verbs": verbs}


def _object(version: str, kind: str, name: str, place: str, **rest: object) -> Manifest:
    metadata = {"name": name, "namespace": place}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **rest}
