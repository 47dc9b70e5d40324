"""The Pods of boxes over their lives: made or found, awaited, removed, listed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import quote

from palestra.sandbox import kubernetes_claims as claims
from palestra.sandbox import kubernetes_lease as leases
from palestra.sandbox import kubernetes_pod as pods
from palestra.sandbox import kubernetes_status as status
from palestra.sandbox.base import CreateError, Found, TransportError
from palestra.sandbox.kubernetes_api import Api, ApiFault
from palestra.sandbox.remote import Fate

_END_S = 8.0
_DEAD_S = 30.0
_GONE_S = 60.0
_TURN_S, _SLOW_TURN_S = 0.05, 1.0


@dataclass(frozen=True, slots=True)
class Made:
    """A Pod; ``ours`` when it was made just now."""

    name: str
    uid: str
    ours: bool = False


class Again(Exception):
    """An earlier Pod of that name is on its way out."""


class Pods:
    """The Pods of one namespace; those made here belong to the Lease of this driver.

    Example: ``made = await api.run(partial(Pods(api).made, "palestra-1", plan))``
    """

    def __init__(self, api: Api) -> None:
        self._api = api
        self._heart = leases.Heart(api)

    def owner(self) -> dict[str, Any]:
        """The reference to the Lease of this driver; blocks. Raises ``ApiFault``."""
        return self._heart.owner()

    def made(self, name: str, plan: pods.Plan) -> Made:
        """The Pod of that name, made, or found where its box has a key; blocks. Raises
        ``CreateError`` and ``ApiFault``."""
        owner, until = self._heart.owner(), time.monotonic() + _GONE_S
        pod = pods.pod(name, plan, owners=[owner], now=time.time())
        while True:
            with suppress(Again):
                return self._tried(pod, plan, owner)
            if time.monotonic() > until:
                raise CreateError("queue", f"{name}: an earlier box of that name does not go away")
            time.sleep(_TURN_S)

    def _tried(self, pod: dict[str, Any], plan: pods.Plan, owner: dict[str, Any]) -> Made:
        name = status.name(pod)
        try:
            return Made(name, status.uid(self._api.now("POST", "pods", pod)), ours=True)
        except ApiFault as fault:
            # Nobody knows whether it was made, or it is there already: the name tells.
            if fault.status not in (0, 409, 500, 504):
                raise
            refusal = fault
        try:
            found = self._api.now("GET", f"pods/{name}")
        except ApiFault as fault:
            if fault.status == 404 and refusal.status == 409:
                raise Again from fault
            raise refusal from fault
        if not plan.spec.key:
            return Made(name, status.uid(found), ours=True)
        ident = status.uid(found)
        try:
            if status.leaving(found):
                body = {**_grace(1), "preconditions": {"uid": ident}}
                self._api.now("DELETE", f"pods/{name}", body)
                raise Again
            if found["metadata"]["labels"].get(pods.SHAPE) != pods.shape(plan):
                raise CreateError("start", f"{name} exists with another image or other limits")
            # Its owners are added to: it lives as long as one of them.
            metadata = {"uid": ident, "ownerReferences": [owner]}
            self._api.now("PATCH", f"pods/{name}", {"metadata": metadata})
        except ApiFault as fault:
            if fault.status in (404, 409):
                # It went just now, or another one has its name already.
                raise Again from fault
            raise
        return Made(name, ident, ours=False)

    async def started(self, made: Made, *, schedule_s: float, start_s: float) -> dict[str, Any]:
        """The Pod once its supervisor runs: ``schedule_s`` seconds for a node and ``start_s`` more
        for the rest. Raises ``CreateError`` and ``ApiFault``."""
        began, turn, deadline = time.monotonic(), _TURN_S, schedule_s
        while True:
            found = await self._api.call("GET", f"pods/{made.name}")
            if status.uid(found) != made.uid:
                raise CreateError("start", f"{made.name} was removed while it started")
            if status.running(found):
                return found
            if problem := status.obstacle(found):
                if "deletionTimestamp" in found["metadata"]:
                    # By the garbage collector, if our Lease is gone: the next box needs another.
                    await self._api.run(self._heart.renew)
                raise problem
            if status.scheduled(found):
                deadline = schedule_s + start_s
            if (waited := time.monotonic() - began) > deadline:
                raise status.late(found, await self._events(made), waited)
            await asyncio.sleep(turn)
            turn = min(turn * 1.3, _SLOW_TURN_S)

    async def fate(self, made: Made) -> Fate:
        """What became of a Pod whose connection ended; raises ``TransportError``."""
        until = time.monotonic() + _END_S
        while True:
            fate = status.fate(await self.found(made.name), made.uid)
            if fate is not None:
                return fate
            # The node tells a second late that a container has ended.
            if time.monotonic() > until:
                return Fate(gone=False)
            await asyncio.sleep(4 * _TURN_S)

    async def found(self, name: str) -> dict[str, Any] | None:
        """The Pod of that name now; raises ``TransportError``."""
        try:
            return await self._api.call("GET", f"pods/{quote(name, safe='')}")
        except ApiFault as fault:
            if fault.status == 404:
                return None
            raise TransportError(f"kubernetes: {name}: {fault}") from fault

    async def removed(self, name: str, uid: str = "", *, wait: bool = True) -> None:
        """Remove the Pod of that name, if it is the one of that uid where one is given, and bury
        its driver if that is dead; raises ``TransportError``.

        With ``wait``, until its processes have ended, for 30 s at most: without an answer from the
        node they end with it. The Pod itself is terminating, and counts in quotas, until the node
        has cleaned up, which nobody should wait for.
        """
        found = await self.found(name)
        if found is None or (uid and status.uid(found) != uid):
            return
        try:
            if claim := claims.claim_of(found):
                # Without its Pod, a claim would get another one.
                await self._api.call("DELETE", f"{claims.CLAIMS}/{claim}")
            else:
                # Where nothing runs there is nothing to wait for; nodes take long to see that.
                grace = _grace(0 if status.ended(found) else 1)
                body = {**grace, "preconditions": {"uid": status.uid(found)}}
                await self._api.call("DELETE", f"pods/{name}", body)
        except ApiFault as fault:
            if fault.status not in (404, 409):
                raise TransportError(f"kubernetes: {name}: {fault}") from fault
        await self._api.run(partial(self._buried, found))
        until, ident = time.monotonic() + _DEAD_S, status.uid(found)
        while wait and time.monotonic() < until:
            left = await self.found(name)
            if left is None or status.uid(left) != ident or status.ended(left):
                return
            await asyncio.sleep(4 * _TURN_S)

    def listed(self, labels: Mapping[str, str]) -> Sequence[Found]:
        """The boxes that carry all of ``labels``; blocks. Raises ``ApiFault``."""
        wanted = {pods.BOX: "1", **pods.selectors(labels)}
        query = {"labelSelector": ",".join(f"{name}={value}" for name, value in wanted.items())}
        found = self._api.now("GET", "pods", query=query)["items"]
        drivers = self._api.now("GET", leases.LEASES, query={"labelSelector": leases.DRIVER})
        now = datetime.now(UTC)
        living = [one["metadata"]["uid"] for one in drivers["items"] if leases.alive(one, now)]
        return [
            pods.listed(
                pod,
                age_s=(now - leases.when(pod["metadata"]["creationTimestamp"])).total_seconds(),
                owner_alive=leases.owned(pod, living),
                now=now.timestamp(),
            )
            for pod in found
            if "deletionTimestamp" not in pod["metadata"]
            and labels.items() <= pods.told(pod).items()
        ]

    def _buried(self, pod: Mapping[str, Any]) -> None:
        for one in leases.drivers(pod):
            if one["uid"] != self._heart.uid:
                with suppress(ApiFault):
                    path = f"{leases.LEASES}/{one['name']}"
                    if not leases.alive(self._api.now("GET", path), datetime.now(UTC)):
                        self._api.now("DELETE", path)

    async def _events(self, made: Made) -> Sequence[dict[str, Any]]:
        with suppress(ApiFault):
            query = {"fieldSelector": f"involvedObject.uid={made.uid}"}
            found = await self._api.call("GET", "events", query=query)
            return sorted(found["items"], key=lambda one: str(one.get("lastTimestamp")))
        return []


def _grace(seconds: int) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": seconds}
