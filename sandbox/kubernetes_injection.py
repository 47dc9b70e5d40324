"""The agent (``kubernetes_agent``) beside a box: a pure function from one Pod to another.

An init container writes the program into a folder that is read-only afterwards. The agent is a
container of its own with a user of its own: what runs in the box can neither see nor signal it, and
shares with it only the network, of which commands get no socket, and a folder that they cannot
write to. In it stands the socket over which the supervisor of the box speaks, until it is connected
to; that happens before the first command.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from typing import Any

from palestra.sandbox import kubernetes_agent

AGENT = "agent"
PORT = 7471
DRIVES = "palestra/drives"
"""The label of Pods with a driver in them, and of their namespaces."""
CPUS, MEMORY = 0.5, 64 << 20
"""What an agent may use, beside its box."""

_CODE, _LINK = "/run/palestra/code", "/run/palestra/link"
_PROGRAM, _SOCKET = f"{_CODE}/agent.py", f"{_LINK}/box"
_PYTHON = ["python3", "-I", "-S", "-X", "utf8"]
_WRITE = "import sys; open(sys.argv[1], 'w').write(sys.argv[2])"
_VOLUMES = {"palestra-code": (_CODE, 1 << 20), "palestra-link": (_LINK, 1 << 16)}


def digest(token: str) -> str:
    """What an agent knows of the token of its driver."""
    return hashlib.sha256(token.encode()).hexdigest()


def agent_user(user: int) -> int:
    """Who the agent of a box with that user is: nobody else's user, nor that of any box."""
    return user // 2


def agent_ingress() -> dict[str, Any]:
    """The rule of a network policy that lets drivers in, and only to agents: Pods with the label
    ``DRIVES`` in namespaces with that label, which only who administrates the cluster gives."""
    drivers = {
        "namespaceSelector": {"matchLabels": {DRIVES: "1"}},
        "podSelector": {"matchLabels": {DRIVES: "1"}},
    }
    return {"from": [drivers], "ports": [{"protocol": "TCP", "port": PORT}]}


def injected(spec: Mapping[str, Any], digest: str) -> dict[str, Any]:
    """``spec`` of a Pod with a box alone, and an agent whose driver has the token of ``digest``."""
    [box] = spec["containers"]
    user = spec["securityContext"]["runAsUser"]
    seconds = box["command"][-1]
    # Kubernetes puts the address in the place of its name.
    told = [seconds, "$(ADDRESS)", str(PORT), _SOCKET, str(user), digest]
    field = {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}
    base = {
        **box,
        "stdin": False,
        "stdinOnce": False,
        "resources": _resources(box["resources"]),
        "securityContext": {**box["securityContext"], "runAsUser": agent_user(user)},
    }
    init = {
        **base,
        "name": "inject",
        "command": [*_PYTHON, "-c", _WRITE, _PROGRAM, inspect.getsource(kubernetes_agent)],
        "volumeMounts": [_mount("palestra-code")],
    }
    agent = {
        **base,
        "name": AGENT,
        "command": [*_PYTHON, _PROGRAM, *told],
        "env": [{"name": "ADDRESS", "valueFrom": field}],
        # The first line is all that it reads of it, and nobody comes before the driver.
        "stdin": digest == kubernetes_agent.LATER,
        "stdinOnce": digest == kubernetes_agent.LATER,
        "ports": [{"name": AGENT, "containerPort": PORT, "protocol": "TCP"}],
        "volumeMounts": [_mount("palestra-code", read_only=True), _mount("palestra-link")],
    }
    linked = {
        **box,
        "command": [*box["command"], _SOCKET],
        "stdin": False,
        "stdinOnce": False,
        "volumeMounts": [*box["volumeMounts"], _mount("palestra-link", read_only=True)],
    }
    volumes = [
        {"name": name, "emptyDir": {"medium": "Memory", "sizeLimit": str(size)}}
        for name, (_, size) in _VOLUMES.items()
    ]
    return {
        **spec,
        "initContainers": [init],
        "containers": [agent, linked],
        "volumes": [*spec["volumes"], *volumes],
    }


def _resources(box: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """Of an agent: as much of it is reserved as of its box."""
    share = int(box["requests"]["cpu"][:-1]) / int(box["limits"]["cpu"][:-1])
    limits = {"cpu": f"{round(CPUS * 1000)}m", "memory": str(MEMORY)}
    limits["ephemeral-storage"] = str(16 << 20)
    requests = {**limits, "cpu": f"{max(1, round(CPUS * share * 1000))}m"}
    return {"requests": requests, "limits": limits}


def _mount(volume: str, *, read_only: bool = False) -> dict[str, Any]:
    path, _ = _VOLUMES[volume]
    return {"name": volume, "mountPath": path, "readOnly": read_only}
