"""Boxes out of a warm pool of agent-sandbox, which is made with the first of them.

Template, pool and claims belong to the Lease of this driver: they and their Pods go when it goes.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from typing import Any

from palestra.sandbox import kubernetes_claims as claims
from palestra.sandbox import kubernetes_pod as pods
from palestra.sandbox import kubernetes_status as status
from palestra.sandbox.base import CreateError, TransportError
from palestra.sandbox.kubernetes_api import Api, ApiFault
from palestra.sandbox.kubernetes_life import Made, Pods

_TURN_S, _SLOW_TURN_S = 0.05, 1.0


class Pool:
    """``boxes`` Pods like that of ``plan`` are kept ready; one has ``claim_s`` seconds to be there
    once it is claimed. Has what ``Pods`` has to make boxes and to remove them.

    Example: ``pool = Pool(api, Pods(api), plan, boxes=8, claim_s=60.0)``
    """

    def __init__(
        self, api: Api, pods: Pods, plan: pods.Plan, *, boxes: int, claim_s: float
    ) -> None:
        self._api = api
        self._pods = pods
        self._plan = plan
        self._boxes = boxes
        self._claim_s = claim_s
        self._lock = threading.Lock()
        self._owner = ""

    def fits(self, plan: pods.Plan) -> bool:
        """Whether its boxes can stand for that of ``plan``: a key needs a name of its own."""
        return not plan.spec.key and pods.shape(plan) == pods.shape(self._plan)

    def made(self, name: str, plan: pods.Plan) -> Made:
        """The claim of that name; blocks. Raises ``ApiFault``."""
        owner = self._pods.owner()
        pool = self._filled(owner)
        wanted = claims.claim(name, plan, pool=pool, owner=owner, now=time.time())
        return Made(name, status.uid(self._api.now("POST", claims.CLAIMS, wanted)), ours=True)

    async def started(self, made: Made, **_: float) -> dict[str, Any]:
        """The Pod that a claim was given; raises ``CreateError`` and ``ApiFault``."""
        until, turn = time.monotonic() + self._claim_s, _TURN_S
        while True:
            found = await self._api.call("GET", f"{claims.CLAIMS}/{made.name}")
            if status.uid(found) != made.uid or "deletionTimestamp" in found["metadata"]:
                raise CreateError("start", f"{made.name}: its claim was removed")
            if claims.ready(found):
                query = {"labelSelector": f"{claims.CLAIMED_BY}={made.uid}"}
                given = (await self._api.call("GET", "pods", query=query))["items"]
                # Its marks may come after its name: without them it could not be removed.
                for pod in given:
                    if status.running(pod) and claims.claim_of(pod) == made.name:
                        return dict(pod)
            if time.monotonic() > until:
                why = f"{claims.reason(found)}; {await self._fill()}"
                text = f"{made.name}: no box of the warm pool within {self._claim_s:.0f} s; {why}"
                raise CreateError("queue", text)
            await asyncio.sleep(turn)
            turn = min(turn * 1.3, _SLOW_TURN_S)

    async def removed(self, name: str, uid: str = "", *, wait: bool = True) -> None:
        """Remove the claim of that name; what belongs to it follows. Raises ``TransportError``."""
        try:
            await self._api.call("DELETE", f"{claims.CLAIMS}/{name}")
        except ApiFault as fault:
            if fault.status != 404:
                raise TransportError(f"kubernetes: {name}: {fault}") from fault

    def _filled(self, owner: dict[str, Any]) -> str:
        """The name of the pool of this driver, which is another one when its Lease is."""
        name = f"palestra-{pods.shape(self._plan)}-{owner['uid'][:8]}"
        with self._lock:
            if self._owner != owner["uid"]:
                template = claims.template(name, self._plan, owners=[owner])
                pool = claims.warm_pool(name, template=name, boxes=self._boxes, owners=[owner])
                for path, manifest in ((claims.TEMPLATES, template), (claims.POOLS, pool)):
                    self._placed(path, manifest)
                self._owner = owner["uid"]
        return name

    def _placed(self, path: str, manifest: dict[str, Any]) -> None:
        try:
            self._api.now("POST", path, manifest)
        except ApiFault as fault:
            # By an earlier try whose answer was lost, or another backend of this driver.
            if fault.status != 409:
                raise

    async def _fill(self) -> str:
        with suppress(ApiFault):
            name = f"palestra-{pods.shape(self._plan)}-{self._owner[:8]}"
            found = await self._api.call("GET", f"{claims.POOLS}/{name}")
            return f"{found.get('status', {}).get('readyReplicas', 0)} are ready"
        return "nobody knows how many are ready"
