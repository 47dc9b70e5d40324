"""Warm boxes by the agent-sandbox controllers, where a cluster has them: manifests, pure.

What their defaults get wrong for agents is spelled out: a template without a policy may reach the
whole Internet, a claim is kept for ever, and variables in a claim make its box start cold.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from palestra.sandbox.kubernetes_agent import LATER
from palestra.sandbox.kubernetes_api import Api, ApiFault
from palestra.sandbox.kubernetes_injection import agent_ingress
from palestra.sandbox.kubernetes_lease import OWNER
from palestra.sandbox.kubernetes_pod import Plan, marks, pod_spec

GROUP = "extensions.agents.x-k8s.io"
VERSION = f"{GROUP}/v1beta1"
TEMPLATES, POOLS, CLAIMS = (
    f"{VERSION}:{kind}" for kind in ("sandboxtemplates", "sandboxwarmpools", "sandboxclaims")
)
CLAIMED_BY = "agents.x-k8s.io/claim-uid"
"""The label that their controllers give to the Pod of a claim."""

_KINDS = frozenset({"SandboxTemplate", "SandboxWarmPool", "SandboxClaim"})
_IDLE_S = 7 * 24 * 3600.0
_WARM, _CLAIM = "palestra/warm", "palestra/claim"


def installed(api: Api) -> bool:
    """Whether this cluster serves what is used here; blocks. Raises ``ApiFault``."""
    try:
        served = api.now("GET", f"/apis/{VERSION}")["resources"]
    except ApiFault as fault:
        if fault.status == 404:
            return False
        raise
    return {one["kind"] for one in served} >= _KINDS


def template(name: str, plan: Plan, *, owners: list[dict[str, Any]]) -> dict[str, Any]:
    """Boxes of one kind: our Pod, no network but that of its agent, nothing that a claim may add.

    Its time to live is the claim's: until it is claimed a box may wait for a week. It carries no
    mark of a box, which the claim adds: what a template has a claim must not change.
    """
    spec = pod_spec(name, plan._replace(spec=replace(plan.spec, ttl=_IDLE_S)))
    del spec["activeDeadlineSeconds"]
    ingress = [agent_ingress()] if plan.digest == LATER else []
    body = {
        "podTemplate": {"metadata": {"labels": {_WARM: name}}, "spec": spec},
        "networkPolicyManagement": "Managed",
        "networkPolicy": {"ingress": ingress, "egress": []},
        "envVarsInjectionPolicy": "Disallowed",
        "volumeClaimTemplatesPolicy": "Disallowed",
    }
    return _object("SandboxTemplate", name, body, owners)


def warm_pool(
    name: str, *, template: str, boxes: int, owners: list[dict[str, Any]]
) -> dict[str, Any]:
    """So many boxes of ``template`` that are kept ready."""
    spec = {"replicas": boxes, "sandboxTemplateRef": {"name": template}}
    spec["updateStrategy"] = {"type": "OnReplenish"}
    return _object("SandboxWarmPool", name, spec, owners)


def claim(
    name: str, plan: Plan, *, pool: str, owner: Mapping[str, Any], now: float
) -> dict[str, Any]:
    """One box of a pool for its time to live from ``now`` (Unix seconds), then gone with all that
    belongs to it, as when ``owner``, the Lease of its driver, is gone.

    What a task needs in its environment comes with its commands, never with the claim.
    """
    until = datetime.fromtimestamp(now + plan.spec.ttl, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    found = marks(plan, now)
    found["annotations"] |= {OWNER: json.dumps(dict(owner)), _CLAIM: name}
    spec = {
        "warmPoolRef": {"name": pool},
        "lifecycle": {
            "shutdownPolicy": "Delete",
            "shutdownTime": until,
            "ttlSecondsAfterFinished": 60,
        },
        "additionalPodMetadata": found,
    }
    return _object("SandboxClaim", name, spec, [dict(owner)])


def claim_of(pod: Mapping[str, Any]) -> str:
    """The name of the claim that a Pod was given to, empty if there is none."""
    return str(pod["metadata"].get("annotations", {}).get(_CLAIM, ""))


def ready(claim: Mapping[str, Any]) -> bool:
    """Whether a claim has a box that runs."""
    status = claim.get("status", {})
    conditions = {one["type"]: one["status"] for one in status.get("conditions", ())}
    return conditions.get("Ready") == "True" and bool(status.get("sandbox", {}).get("name"))


def reason(claim: Mapping[str, Any]) -> str:
    """Why a claim is not ready, as its controller has it."""
    said = [
        f"{one.get('reason', '')}: {one.get('message', '')}"
        for one in claim.get("status", {}).get("conditions", ())
        if one["type"] == "Ready"
    ]
    return " ".join(said) or "its controller says nothing"


def _object(
    kind: str, name: str, spec: dict[str, Any], owners: list[dict[str, Any]]
) -> dict[str, Any]:
    metadata = {"name": name, "ownerReferences": owners}
    return {"apiVersion": VERSION, "kind": kind, "metadata": metadata, "spec": spec}
