"""Boxes made of Kubernetes Pods, run by a supervisor inside (``inbox``) that we speak with."""

from __future__ import annotations

import asyncio
import platform
import secrets
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from palestra.rl.types import Image
from palestra.sandbox import kubernetes_pod as pods
from palestra.sandbox import kubernetes_status as status
from palestra.sandbox import kubernetes_ways as ways
from palestra.sandbox import seccomp
from palestra.sandbox.base import (
    Box,
    BoxSpec,
    CreateError,
    Found,
    TransportError,
    asked,
    box_name,
    completed,
    opening,
)
from palestra.sandbox.images import full_name, mirrored
from palestra.sandbox.inbox import PING
from palestra.sandbox.kubernetes_agent import LATER
from palestra.sandbox.kubernetes_api import ApiFault
from palestra.sandbox.kubernetes_claims import claim_of, installed
from palestra.sandbox.kubernetes_http import HttpChannel
from palestra.sandbox.kubernetes_injection import digest
from palestra.sandbox.kubernetes_keeper import KubernetesKeeper
from palestra.sandbox.kubernetes_life import Made, Pods
from palestra.sandbox.kubernetes_pool import Pool
from palestra.sandbox.kubernetes_stream import Stream
from palestra.sandbox.limits import Limits
from palestra.sandbox.link import Link, LinkLost
from palestra.sandbox.probe import LIMITS, probe
from palestra.sandbox.remote import Fate, RemoteBox, configuration

if TYPE_CHECKING:
    from palestra.sandbox.inbox_processes import Config

_LINK_S = 60.0
_SHARING = 100
"""Boxes of a warm pool that may share their user's limit of processes: our default."""
_PROBED: dict[tuple[str, ...], tuple[frozenset[str], ways.Transport]] = {}
_PROBING = threading.Lock()


class Kubernetes:
    """Makes boxes in one namespace of a cluster; see ``kubernetes_api.Api`` for how it is found.

    ``image`` is for boxes that name none, ``limits`` for those opened without a ``BoxSpec``.
    ``cpus`` is what one box may use of processors and ``reserve`` the share of that which is kept
    for it (1: all), ``runtime`` a RuntimeClass such as ``gvisor``, ``account`` a service account,
    ``priority`` a PriorityClass, ``machine`` the architecture of the nodes. Nodes pull images only
    with ``pull="missing"``; ``mirrors`` say from where. A box waits ``schedule_s`` seconds for a
    node and ``start_s`` more for its image and its start. ``transport`` is the way to the boxes,
    ``auto`` the best that works (``kubernetes_ways``). Where agent-sandbox is installed, it keeps
    ``warm`` boxes ready that are like those opened without a ``BoxSpec``, and one has ``claim_s``
    seconds to be there. Construction makes a box, once per process, to see what holds. Raises
    ``CreateError``.

    Example: ``async with Kubernetes(image="python:3.12-slim").open() as box: ...``
    """

    name = "kubernetes"

    def __init__(
        self,
        *,
        image: str = "",
        limits: Limits | None = None,
        namespace: str = "",
        kubeconfig: str = "",
        context: str = "",
        cpus: float = 1.0,
        reserve: float = 1.0,
        runtime: str = "",
        account: str = "",
        priority: str = "",
        machine: str = "",
        pull: Literal["never", "missing"] = "never",
        mirrors: Mapping[str, str] | None = None,
        schedule_s: float = 120.0,
        start_s: float = 180.0,
        transport: ways.Transport = "auto",
        warm: int = 0,
        claim_s: float = 60.0,
        workers: int = 16,
    ) -> None:
        self._keeper = KubernetesKeeper(
            kubeconfig=kubeconfig, context=context, namespace=namespace, workers=workers
        )
        self._api, self._pods = self._keeper.api, self._keeper.pods
        self._image = image
        self._mirrors = dict(mirrors or {})
        self._limits = limits or Limits()
        self._cpus, self._reserve = cpus, reserve
        self._pull = pull
        self._runtime, self._account, self._priority = runtime, account, priority
        self._machine = machine or platform.machine()
        self._patience = {"schedule_s": schedule_s, "start_s": start_s}
        self.transport = transport
        self._pool: Pool | None = None
        # In a thread: the caller may have an event loop that is running.
        with ThreadPoolExecutor(1) as pool:
            found = pool.submit(asyncio.run, self._probed()).result()
        self.guarantees, self.transport = found
        self._pool = self._warmed(warm, claim_s) if warm else None
        if self._pool:
            # All boxes of a pool have one user, and a limit of processes is one per user.
            self.guarantees -= {"pids"}

    @property
    def way(self) -> str:
        """How boxes are reached, in words."""
        kept = "; agent-sandbox keeps some ready" if self._pool else ""
        return ways.MEANING[self.transport] + kept

    def open(self, spec: BoxSpec | Image | None = None, /) -> AbstractAsyncContextManager[Box]:
        """A box for the length of a ``with`` block; raises ``CreateError``."""
        return opening(self, asked(spec, BoxSpec(limits=self._limits)))

    async def create(self, spec: BoxSpec) -> RemoteBox:
        """A fresh box, or the one whose ``key`` it is; raises ``CreateError``."""
        name, token = box_name(spec), secrets.token_urlsafe(32)
        agent = "" if self.transport == "websocket" else digest(token)
        plan = self._plan(spec)._replace(digest=agent)
        source = self._pool if self._pool and self._pool.fits(plan) else self._pods
        job = self._api.submit(partial(source.made, name, plan))
        try:
            asked = await asyncio.shield(asyncio.wrap_future(job))
            found = await source.started(asked, **self._patience)
            made = Made(status.name(found), status.uid(found), ours=asked.ours)
            if source is self._pool and agent:
                await ways.introduce(self._api, made.name, agent)
            channel, link = await self._linked(made, spec, found, token)
        except BaseException as error:
            await completed(self._undone(source, job, name, spec))
            if isinstance(error, ApiFault):
                raise CreateError(error.stage, f"{name}: {error}") from error
            raise
        return RemoteBox(
            made.name,
            spec,
            link,
            inquire=partial(self._inquire, made, channel),
            remove=partial(self._removed, source, asked, channel, wait=bool(spec.key)),
        )

    async def list(self, labels: Mapping[str, str]) -> Sequence[Found]:
        """The boxes of this namespace that carry all of ``labels``; raises ``TransportError``."""
        return await self._keeper.list(labels)

    async def remove(self, name: str) -> None:
        """Remove a box, and the Lease of its driver if that is dead; harmless when it is gone.
        Raises ``TransportError``."""
        await self._keeper.remove(name)

    def _plan(self, spec: BoxSpec) -> pods.Plan:
        image = spec.image or self._image
        if not image:
            raise CreateError("image", "no image: set sandbox.image")
        if self._machine not in pods.ARCHITECTURES:
            raise CreateError("schedule", f"no boxes for machines of the kind {self._machine}")
        return pods.Plan(
            spec,
            full_name(mirrored(image, self._mirrors)),
            pull=self._pull,
            machine=self._machine,
            cpus=self._cpus,
            reserve=self._reserve,
            runtime=self._runtime,
            account=self._account,
            priority=self._priority,
        )

    async def _linked(
        self, made: Made, spec: BoxSpec, found: Mapping[str, Any], token: str
    ) -> tuple[Stream | HttpChannel, Link]:
        # A box with a key waits for whoever adopts it; the others end with their connection.
        orphan_s = spec.ttl if made.ours and spec.key else 0.0
        config = self._config(found, spec, orphan_s)
        channel: Stream | HttpChannel | None = None
        try:
            async with asyncio.timeout(_LINK_S):
                channel = await self._channel(made, spec, found, token)
                link = await Link.opened(channel, config)
        except (LinkLost, TimeoutError) as lost:
            text = channel.complaint or channel.status if isinstance(channel, Stream) else ""
            stage = "image" if "python3" in text else "start"
            raise CreateError(stage, f"{made.name}: {text or lost or 'no connection'}") from lost
        if isinstance(channel, Stream):
            channel.keep(partial(link.signal, PING), link.close)
        return channel, link

    async def _channel(
        self, made: Made, spec: BoxSpec, found: Mapping[str, Any], token: str
    ) -> Stream | HttpChannel:
        if not made.ours:
            # Its agent serves another driver: this one gets a supervisor of its own.
            return await Stream.started(self._api, made.name, pods.command(spec.ttl))
        if self.transport == "websocket":
            return await Stream.attached(self._api, made.name)
        self.transport, channel = await ways.opened(
            self._api, found, self.transport, token, patience_s=_LINK_S / 2
        )
        return channel

    def _config(self, found: Mapping[str, Any], spec: BoxSpec, orphan_s: float) -> Config:
        config = configuration(spec, machine=self._machine, ttl=spec.ttl, orphan_s=orphan_s)
        number = found["spec"]["securityContext"]["runAsUser"]
        config["user"] = (number, number)
        most = spec.limits.pids * (_SHARING if claim_of(found) else 1)
        config["rlimits"] = {**config["rlimits"], "RLIMIT_NPROC": most}
        if seccomp.available(self._machine):
            # A Pod always has a network, and not every cluster enforces policies on it.
            config["filter"] = seccomp.build(machine=self._machine, shared_user=True)
        return config

    async def _undone(
        self, source: Pods | Pool, job: Future[Made], name: str, spec: BoxSpec
    ) -> None:
        """Remove what nobody wants any more, once it is known what was made."""
        if job.cancel():
            return
        uid = ""
        try:
            made = await asyncio.wrap_future(job)
            if not made.ours:
                return
            uid = made.uid
        except (ApiFault, CreateError):
            # Without a key, whatever has this name is ours.
            if spec.key:
                return
        with suppress(TransportError):
            await source.removed(name, uid, wait=False)

    async def _inquire(self, made: Made, channel: Stream | HttpChannel) -> Fate:
        if isinstance(channel, Stream) and channel.status and not made.ours:
            return Fate(gone=True, text=f"its supervisor ended: {channel.status}")
        return await self._pods.fate(made)

    async def _removed(
        self, source: Pods | Pool, made: Made, channel: Stream | HttpChannel, *, wait: bool
    ) -> None:
        # Without a key, the box ends when its connection does: then nobody needs to wait.
        if isinstance(channel, HttpChannel):
            await channel.left()
        await source.removed(made.name, made.uid, wait=wait)

    def _warmed(self, boxes: int, claim_s: float) -> Pool | None:
        """The pool, where agent-sandbox is installed; raises ``CreateError``."""
        try:
            if not installed(self._api):
                return None
        except ApiFault as fault:
            raise CreateError(fault.stage, str(fault)) from fault
        agent = "" if self.transport == "websocket" else LATER
        plan = self._plan(BoxSpec(limits=self._limits))._replace(digest=agent)
        return Pool(self._api, self._pods, plan, boxes=boxes, claim_s=claim_s)

    async def _probed(self) -> tuple[frozenset[str], ways.Transport]:
        plan = self._plan(BoxSpec(limits=LIMITS, ttl=300.0))
        asked = (plan.image, plan.runtime, plan.machine, self.transport)
        key = (self._api.host, self._api.namespace, *asked)
        with _PROBING:
            if key not in _PROBED:
                try:
                    held = await self._tried(plan.spec)
                except ways.Unreachable:
                    if self.transport != "auto":
                        raise
                    self.transport = "websocket"
                    held = await self._tried(plan.spec)
                _PROBED[key] = held, self.transport
            return _PROBED[key]

    async def _tried(self, spec: BoxSpec) -> frozenset[str]:
        async with self.open(spec) as box:
            return await probe(box, LIMITS) | {"image"}
