"""Boxes made of Kubernetes Pods, run by a supervisor inside (``inbox``) that we speak with."""

from __future__ import annotations

import asyncio
import platform
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from typing import TYPE_CHECKING, Literal

from palestra.sandbox import kubernetes_pod as pods
from palestra.sandbox import seccomp
from palestra.sandbox.base import (
    Box,
    BoxSpec,
    CreateError,
    Found,
    TransportError,
    box_name,
    completed,
    opening,
)
from palestra.sandbox.images import full_name, mirrored
from palestra.sandbox.inbox import PING
from palestra.sandbox.kubernetes_api import ApiFault
from palestra.sandbox.kubernetes_keeper import KubernetesKeeper
from palestra.sandbox.kubernetes_life import Made
from palestra.sandbox.kubernetes_stream import Stream
from palestra.sandbox.limits import Limits
from palestra.sandbox.link import Link, LinkLost
from palestra.sandbox.probe import LIMITS, probe
from palestra.sandbox.remote import Fate, RemoteBox, configuration

if TYPE_CHECKING:
    from palestra.sandbox.inbox_processes import Config

_LINK_S = 60.0
_PROBED: dict[tuple[str, ...], frozenset[str]] = {}
_PROBING = threading.Lock()


class Kubernetes:
    """Makes boxes in one namespace of a cluster; see ``kubernetes_api.Api`` for how it is found.

    ``image`` is for boxes that name none, ``limits`` for those opened without a ``BoxSpec``.
    ``cpus`` is what one box may use of processors and ``reserve`` the share of that which is kept
    for it (1: all), ``runtime`` a RuntimeClass such as ``gvisor``, ``account`` a service account,
    ``priority`` a PriorityClass, ``machine`` the architecture of the nodes. Nodes pull images only
    with ``pull="missing"``; ``mirrors`` say from where. A box waits ``schedule_s`` seconds for a
    node and ``start_s`` more for its image and its start. Construction makes a box, once per
    process, to see what holds. Raises ``CreateError``.

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
        # In a thread: the caller may have an event loop that is running.
        with ThreadPoolExecutor(1) as pool:
            self.guarantees = pool.submit(asyncio.run, self._probed()).result()

    def open(self, spec: BoxSpec | None = None) -> AbstractAsyncContextManager[Box]:
        """A box for the length of a ``with`` block; raises ``CreateError``."""
        return opening(self, spec or BoxSpec(limits=self._limits))

    async def create(self, spec: BoxSpec) -> RemoteBox:
        """A fresh box, or the one whose ``key`` it is; raises ``CreateError``."""
        name, plan = box_name(spec), self._plan(spec)
        job = self._api.submit(partial(self._pods.made, name, plan))
        try:
            made = await asyncio.shield(asyncio.wrap_future(job))
            await self._pods.started(made, **self._patience)
            stream, link = await self._linked(made, spec)
        except BaseException as error:
            await completed(self._undone(job, name, spec))
            if isinstance(error, ApiFault):
                raise CreateError(error.stage, f"{name}: {error}") from error
            raise
        stream.keep(partial(link.signal, PING), link.close)
        return RemoteBox(
            name,
            spec,
            link,
            inquire=partial(self._inquire, made, stream),
            # Without a key, the box has ended itself when its connection did.
            remove=partial(self._pods.removed, name, made.uid, wait=bool(spec.key)),
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

    async def _linked(self, made: Made, spec: BoxSpec) -> tuple[Stream, Link]:
        # A box with a key waits for whoever adopts it; the others end with their connection.
        orphan_s = spec.ttl if made.ours and spec.key else 0.0
        config = self._config(made.name, spec, orphan_s)
        stream: Stream | None = None
        try:
            async with asyncio.timeout(_LINK_S):
                if made.ours:
                    stream = await Stream.attached(self._api, made.name)
                else:
                    command = pods.command(spec.ttl)
                    stream = await Stream.started(self._api, made.name, command)
                return stream, await Link.opened(stream, config)
        except (LinkLost, TimeoutError) as lost:
            text = stream.complaint or stream.status if stream else ""
            stage = "image" if "python3" in text else "start"
            raise CreateError(stage, f"{made.name}: {text or lost or 'no connection'}") from lost

    def _config(self, name: str, spec: BoxSpec, orphan_s: float) -> Config:
        config = configuration(spec, machine=self._machine, ttl=spec.ttl, orphan_s=orphan_s)
        number = pods.user(name)
        config["user"] = (number, number)
        config["rlimits"] = {**config["rlimits"], "RLIMIT_NPROC": spec.limits.pids}
        if seccomp.available(self._machine):
            # A Pod always has a network, and not every cluster enforces policies on it.
            config["filter"] = seccomp.build(machine=self._machine, shared_user=True)
        return config

    async def _undone(self, job: Future[Made], name: str, spec: BoxSpec) -> None:
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
            await self._pods.removed(name, uid, wait=False)

    async def _inquire(self, made: Made, stream: Stream) -> Fate:
        if stream.status and not made.ours:
            return Fate(gone=True, text=f"its supervisor ended: {stream.status}")
        return await self._pods.fate(made)

    async def _probed(self) -> frozenset[str]:
        plan = self._plan(BoxSpec(limits=LIMITS, ttl=300.0))
        key = (self._api.host, self._api.namespace, plan.image, plan.runtime, plan.machine)
        with _PROBING:
            if key not in _PROBED:
                async with self.open(plan.spec) as box:
                    _PROBED[key] = await probe(box, LIMITS) | {"image"}
            return _PROBED[key]
