"""Warm boxes by the agent-sandbox controllers, where a cluster has them: manifests, pure.

Schema only: no test here has seen their controllers at work, and ``Kubernetes`` does not use them.
What their defaults get wrong for agents is spelled out: a template without a policy may reach the
whole Internet, a claim is kept for ever, and variables in a claim make its box start cold.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from palestra.sandbox.kubernetes_api import Api, ApiFault
from palestra.sandbox.kubernetes_pod import BOX, Plan, command, pod_spec, selectors

GROUP = "extensions.agents.x-k8s.io"
VERSION = f"{GROUP}/v1beta1"
_KINDS = frozenset({"SandboxTemplate", "SandboxWarmPool", "SandboxClaim"})
_IDLE_S = 7 * 24 * 3600.0


def installed(api: Api) -> bool:
    """Whether this cluster serves what is used here; blocks. Raises ``ApiFault``."""
    try:
        served = api.now("GET", f"/apis/{VERSION}")["resources"]
    except ApiFault as fault:
        if fault.status == 404:
            return False
        raise
    return {one["kind"] for one in served} >= _KINDS


def template(name: str, plan: Plan) -> dict[str, Any]:
    """Boxes of one kind: our Pod, no network, nothing that a claim may add.

    Its time to live is the claim's: until it is claimed a box may wait for a week.
    """
    spec = pod_spec(name, plan)
    del spec["activeDeadlineSeconds"]
    [container] = spec["containers"]
    spec["containers"] = [{**container, "command": command(_IDLE_S)}]
    return _object(
        "SandboxTemplate",
        name,
        {
            "podTemplate": {"metadata": {"labels": {BOX: "1"}}, "spec": spec},
            "networkPolicyManagement": "Managed",
            "networkPolicy": {"ingress": [], "egress": []},
            "envVarsInjectionPolicy": "Disallowed",
            "volumeClaimTemplatesPolicy": "Disallowed",
        },
    )


def warm_pool(name: str, *, template: str, boxes: int) -> dict[str, Any]:
    """So many boxes of ``template`` that are kept ready."""
    spec = {"replicas": boxes, "sandboxTemplateRef": {"name": template}}
    return _object("SandboxWarmPool", name, {**spec, "updateStrategy": {"type": "OnReplenish"}})


def claim(
    name: str, *, pool: str, labels: Mapping[str, str], ends: float, owners: list[dict[str, Any]]
) -> dict[str, Any]:
    """One box of a pool until ``ends`` (Unix seconds), then gone with all that belongs to it.

    What a task needs in its environment comes with its commands, never with the claim.
    """
    until = datetime.fromtimestamp(ends, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    spec = {
        "warmPoolRef": {"name": pool},
        "lifecycle": {
            "shutdownPolicy": "Delete",
            "shutdownTime": until,
            "ttlSecondsAfterFinished": 60,
        },
        "additionalPodMetadata": {"labels": selectors(labels)},
    }
    found = _object("SandboxClaim", name, spec)
    found["metadata"]["ownerReferences"] = owners
    return found


def _object(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
