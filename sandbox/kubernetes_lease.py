"""Who made which boxes: a Lease per driver that owns its Pods and shows whether it lives.

A Pod whose owners are all gone is removed by the cluster's own garbage collector, so removing the
Lease of a dead driver (``reap``, or the CronJob of deploy/k8s) removes all it has left.
"""

from __future__ import annotations

import atexit
import json
import os
import secrets
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from palestra.sandbox.kubernetes_api import Api, ApiFault
from palestra.sandbox.owner import Owner

DRIVER = "palestra/driver"
OWNER = "palestra/owner"
"""The annotation with the owner reference of a Pod whose owner is another object than its Lease."""
LEASES = "coordination.k8s.io/v1:leases"
RENEW_S = 15.0
STALE_S = 60
"""A Lease is renewed so often; it is stale when it was not for so long."""


class Heart:
    """The Lease of this driver, made with the first box and renewed by a thread of its own.

    Example: ``pod["metadata"]["ownerReferences"] = [Heart(api).owner()]``
    """

    def __init__(self, api: Api) -> None:
        self._api = api
        self._lock = threading.Lock()
        self._owner: dict[str, Any] = {}
        self._over = threading.Event()
        self._pid = 0

    def owner(self) -> dict[str, Any]:
        """The owner reference for Pods of ours; raises ``ApiFault``."""
        with self._lock:
            if not self._owner or self._pid != os.getpid():
                made = self._api.now("POST", LEASES, lease(secrets.token_hex(6), datetime.now(UTC)))
                self._owner = reference(made)
                self._pid = os.getpid()
                beat = threading.Thread(target=self._beat, args=(self._owner["name"],), daemon=True)
                beat.start()
                atexit.register(self.stop)
            return self._owner

    @property
    def uid(self) -> str:
        """Of the Lease, empty while there is none."""
        return str(self._owner.get("uid", ""))

    def stop(self) -> None:
        """Give the Lease up, and with it what boxes are left."""
        self._over.set()
        # Not in a fork of the driver, which owns nothing.
        if self._owner and self._pid == os.getpid():
            with suppress(ApiFault):
                self._api.now("DELETE", f"{LEASES}/{self._owner['name']}")

    def renew(self) -> None:
        """Show that we live. Where somebody took us for dead, our boxes are gone, and the next ones
        get another Lease."""
        with self._lock, suppress(ApiFault):
            if self._owner:
                try:
                    renewed = {"spec": _renewed(datetime.now(UTC))}
                    self._api.now("PATCH", f"{LEASES}/{self._owner['name']}", renewed)
                except ApiFault as fault:
                    if fault.status == 404:
                        self._owner = {}

    def _beat(self, name: str) -> None:
        while not self._over.wait(RENEW_S) and self._owner.get("name") == name:
            self.renew()


def lease(ident: str, now: datetime) -> dict[str, Any]:
    """The Lease of this process."""
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": f"palestra-driver-{ident}", "labels": {DRIVER: "1"}},
        "spec": {
            "holderIdentity": str(Owner.me()),
            "leaseDurationSeconds": STALE_S,
            "acquireTime": _renewed(now)["renewTime"],
            **_renewed(now),
        },
    }


def reference(found: Mapping[str, Any]) -> dict[str, Any]:
    """What makes a Lease the owner of an object."""
    metadata = found["metadata"]
    kind = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
    return {**kind, "name": metadata["name"], "uid": metadata["uid"]}


def alive(found: Mapping[str, Any], now: datetime) -> bool:
    """Whether the driver of a Lease may live: it was renewed, and on this machine it exists."""
    spec = found["spec"]
    silence = (now - when(spec["renewTime"])).total_seconds()
    with suppress(ValueError):
        if not Owner.parse(spec.get("holderIdentity", "")).alive:
            return False
    return silence <= float(spec.get("leaseDurationSeconds", STALE_S))


def owned(pod: Mapping[str, Any], living: Iterable[str]) -> bool:
    """Whether one of the drivers of a Pod is among ``living`` (uids of Leases); a Pod that never
    had one is nobody's, which is no reason to remove it."""
    owners = [one["uid"] for one in drivers(pod)]
    return not owners or not set(owners).isdisjoint(living)


def drivers(pod: Mapping[str, Any]) -> list[dict[str, Any]]:
    """References to the Leases of the drivers of a Pod."""
    metadata = pod["metadata"]
    if OWNER in metadata.get("annotations", {}):
        return [json.loads(metadata["annotations"][OWNER])]
    return list(metadata.get("ownerReferences", ()))


def when(text: str) -> datetime:
    """A time as the API server writes it."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def _renewed(now: datetime) -> dict[str, str]:
    return {"renewTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")}
