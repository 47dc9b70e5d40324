"""What the status of a Pod says: why it does not start, and whose doing its end was. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from palestra.sandbox.base import CreateError
from palestra.sandbox.inbox import ORPHANED
from palestra.sandbox.kubernetes_pod import CONTAINER
from palestra.sandbox.remote import Fate

_NEVER_PULLED = "ErrImageNeverPull"
_NO_IMAGE = (_NEVER_PULLED, "ImagePullBackOff", "InvalidImageName", "ImageInspectError")
_NO_START = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
_OVERUSE = ("ephemeral", "emptydir", "exceeded its local")
_PRESSURE = "the node was low on"
"""Words of an eviction that the box brought upon itself, and of one that is nobody's fault, which
names what the node lacks."""
_LOST = ("ContainerStatusUnknown", "Unknown")
"""Reasons of a container's end where its node was started anew and knows of none."""


def name(found: Mapping[str, Any]) -> str:
    """The name of a Pod."""
    return str(found["metadata"]["name"])


def uid(found: Mapping[str, Any]) -> str:
    """What tells a Pod from a later one of the same name."""
    return str(found["metadata"]["uid"])


def leaving(found: Mapping[str, Any]) -> bool:
    """Whether a Pod is being removed or has run to its end."""
    deleted = "deletionTimestamp" in found["metadata"]
    return deleted or found["status"].get("phase") in ("Succeeded", "Failed")


def running(found: Mapping[str, Any]) -> bool:
    """Whether the supervisor has been started and has not ended, and its agent, if it has one."""
    states = _states(found, "containerStatuses")
    return bool(states) and all("running" in one for one in states) and not leaving(found)


def ended(found: Mapping[str, Any]) -> bool:
    """Whether nothing of a Pod that is being removed runs, or ever will."""
    return "running" not in _state(found)


def scheduled(found: Mapping[str, Any]) -> bool:
    """Whether a Pod has a node."""
    return bool(found["spec"].get("nodeName"))


def obstacle(found: Mapping[str, Any]) -> CreateError | None:
    """What keeps a Pod from ever starting; None while it may still."""
    states = _states(found, "initContainerStatuses", "containerStatuses")
    for waiting in [one["waiting"] for one in states if "waiting" in one]:
        reason, text = waiting.get("reason", ""), waiting.get("message", "")
        if reason in _NO_IMAGE:
            hint = "; load it, or set sandbox.pull to missing" if reason == _NEVER_PULLED else ""
            stage = "queue" if "toomanyrequests" in text.lower() else "image"
            return CreateError(stage, f"{name(found)}: {reason}: {text}{hint}")
        if reason in _NO_START:
            return CreateError(_missing(text) or "start", f"{name(found)}: {reason}: {text}")
    if leaving(found):
        ends = [one["terminated"] for one in states if "terminated" in one]
        ended: Mapping[str, Any] = next(
            (one for one in ends if one.get("reason") != "Completed"), {}
        )
        text = ended.get("message", "") or found["status"].get("message", "")
        reason = ended.get("reason", "") or found["status"].get("reason", "") or "it was removed"
        return CreateError(_missing(text) or "start", f"{name(found)}: {reason}: {text}")
    return None


def late(
    found: Mapping[str, Any], events: Sequence[Mapping[str, Any]], after: float
) -> CreateError:
    """Why a Pod has not started ``after`` seconds, from its conditions and its ``events``."""
    said = [f"{event['reason']}: {event.get('message', '')}" for event in events][-1:]
    text = f"{name(found)} does not run after {after:.0f} s; {' '.join(said) or 'nobody says why'}"
    if not scheduled(found):
        conditions = found["status"].get("conditions", ())
        why = [one.get("message", "") for one in conditions if one["type"] == "PodScheduled"]
        return CreateError("schedule", f"{text}; {' '.join(why)}")
    states = _states(found, "initContainerStatuses", "containerStatuses")
    pulling = any(one.get("waiting", {}).get("reason") == "ErrImagePull" for one in states)
    pulling = pulling or any(event["reason"] == "Pulling" for event in events[-1:])
    return CreateError("image" if pulling else "start", text)


def fate(found: Mapping[str, Any] | None, ident: str) -> Fate | None:
    """What became of the Pod ``ident`` whose connection ended; ``found`` bears its name now. None
    while nothing has, as far as its node has told."""
    if found is None or uid(found) != ident or "deletionTimestamp" in found["metadata"]:
        return Fate(gone=True, by_us=True, text="removed from outside")
    status, ended = found["status"], _state(found).get("terminated")
    if status.get("reason") == "Evicted":
        text = status.get("message", "")
        own = any(word in text.lower() for word in _OVERUSE)
        own = own and _PRESSURE not in text.lower()
        return Fate(gone=True, by_us=not own, text=f"evicted: {text}")
    if status.get("reason"):
        text = f"{status['reason']}: {status.get('message', '')}"
        return Fate(gone=status.get("phase") == "Failed", by_us=True, text=text)
    if ended is None:
        return None
    if ended.get("exitCode") == ORPHANED:
        # The connection was lost first: by then its command had been ended for nobody's fault.
        return Fate(gone=False)
    if ended.get("reason") in _LOST:
        return Fate(gone=True, by_us=True, text="its node lost it")
    if ended.get("reason") == "OOMKilled":
        return Fate(gone=True, oom=True, text="it ran out of memory as a whole")
    return Fate(gone=True, text=f"its supervisor ended with exit code {ended.get('exitCode')}")


def _state(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of the container of the box."""
    statuses = found["status"].get("containerStatuses", ())
    return next((dict(one.get("state", {})) for one in statuses if one["name"] == CONTAINER), {})


def _states(found: Mapping[str, Any], *kinds: str) -> list[Mapping[str, Any]]:
    return [one.get("state", {}) for kind in kinds for one in found["status"].get(kind, ())]


def _missing(text: str) -> str:
    said = text.lower()
    return "image" if "python3" in said or "no such file or directory" in said else ""
