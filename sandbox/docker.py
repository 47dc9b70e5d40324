"""Boxes made of Docker containers, run by a supervisor inside (``inbox``) that we speak with."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from typing import Any, Literal, NamedTuple, TypeVar

from palestra.rl.errors import PalestraError
from palestra.rl.types import Image
from palestra.sandbox import docker_settings as settings
from palestra.sandbox.base import (
    Box,
    BoxSpec,
    CreateError,
    asked,
    box_name,
    completed,
    opening,
)
from palestra.sandbox.docker_daemon import Attached, DaemonFault, hijacked
from palestra.sandbox.docker_images import Images
from palestra.sandbox.docker_keeper import DockerKeeper, removed
from palestra.sandbox.inbox import ORPHANED
from palestra.sandbox.limits import Limits
from palestra.sandbox.link import Link, LinkLost
from palestra.sandbox.probe import LIMITS, probe
from palestra.sandbox.remote import Fate, RemoteBox, configuration

_QUEUE_S = 600.0
_READY_S = 60.0
_END_S = 5
_TURN_S = 0.05
_ORPHAN_S = 15.0
_ASKED_FOR = ("kill", "stop", "restart", "pause")
_PROBED: dict[tuple[str, ...], frozenset[str]] = {}
_PROBING = threading.Lock()
_T = TypeVar("_T")


class Docker(DockerKeeper):
    """Makes boxes on the Docker daemon at ``host`` (empty: ``DOCKER_HOST``, or the usual socket).

    ``image`` is for boxes that name none, ``limits`` for those opened without a ``BoxSpec``;
    ``cpus`` is the share of processors of one box, ``runtime`` another OCI runtime such as
    ``runsc``. Images are pulled only with ``pull="missing"``, ``pulls`` at once and each within
    ``pull_s`` seconds; ``mirrors`` say from where. ``workers`` calls of the daemon run at once.
    Construction makes a box, once per process, to see what holds. Raises ``CreateError``.

    Example: ``async with Docker(image="python:3.12-slim").open() as box: await box.exec("id")``
    """

    name = "docker"

    def __init__(
        self,
        *,
        image: str = "",
        limits: Limits | None = None,
        host: str = "",
        cpus: float = 1.0,
        runtime: str = "",
        pull: Literal["never", "missing"] = "never",
        mirrors: Mapping[str, str] | None = None,
        workers: int = 16,
        pulls: int = 2,
        pull_s: float = 600.0,
    ) -> None:
        super().__init__(host, workers=workers)
        self._images = Images(self.daemon, pull=pull, mirrors=mirrors, at_once=pulls, pull_s=pull_s)
        self._image = image
        self._limits = limits or Limits()
        self._cpus = cpus
        self._runtime = runtime
        # In a thread: the caller may have an event loop that is running.
        with ThreadPoolExecutor(1) as pool:
            self.guarantees = pool.submit(asyncio.run, self._probed()).result()

    def open(self, spec: BoxSpec | Image | None = None, /) -> AbstractAsyncContextManager[Box]:
        """A box for the length of a ``with`` block; raises ``CreateError``."""
        return opening(self, asked(spec, BoxSpec(limits=self._limits)))

    async def create(self, spec: BoxSpec) -> RemoteBox:
        """A fresh box, or the one whose ``key`` it is; raises ``CreateError``."""
        image = await self._images.pinned(spec.image or self._image)
        first = settings.FIRST_REMAPPED if self.daemon.maps_users else settings.FIRST_USER
        plan = settings.Plan(box_name(spec), spec, image, self._cpus, self._runtime, first)
        loop, begun = asyncio.get_running_loop(), asyncio.Event()

        def make(api: Any) -> _Made:
            loop.call_soon_threadsafe(begun.set)
            return _made(api, plan)

        job = self.daemon.submit(make)
        try:
            await _within(_QUEUE_S, "queue", begun.wait())
            made, link = await _within(_READY_S, "start", self._linked(job, plan))
        except DaemonFault as fault:
            raise CreateError(fault.stage, str(fault)) from fault
        except BaseException:
            await completed(self._settle(job))
            raise
        return RemoteBox(
            plan.name,
            spec,
            link,
            inquire=partial(self._inquire, made.id),
            remove=partial(self.remove, made.id),
        )

    async def _settle(self, job: Future[_Made]) -> None:
        """Wait for a box that nobody wants any more, and undo what was made for it."""
        if job.cancel():
            return
        with suppress(PalestraError):
            made = await asyncio.wrap_future(job)
            made.connection.close()
            if made.ours:
                await self.remove(made.id)

    async def _linked(self, job: Future[_Made], plan: settings.Plan) -> tuple[_Made, Link]:
        spec, number = plan.spec, settings.user(plan)
        made = await asyncio.shield(asyncio.wrap_future(job))
        # Adopted, a box has another supervisor too; the one of this connection goes with it.
        orphan_s = 0.0 if not made.ours else spec.ttl if spec.key else _ORPHAN_S
        channel = await Attached.over(made.connection)
        config = configuration(spec, machine=self.daemon.machine, ttl=spec.ttl, orphan_s=orphan_s)
        config["user"] = (number, number)
        try:
            return made, await Link.opened(channel, config)
        except LinkLost as lost:
            if channel.complaint:
                text = f"python3 of the image cannot run boxes: {channel.complaint}"
                raise CreateError("image", text) from lost
            raise CreateError("start", str(lost)) from lost

    async def _inquire(self, ident: str) -> Fate:
        return await self.told(partial(_fate, ident=ident))

    async def _probed(self) -> frozenset[str]:
        image = await self._images.pinned(self._image)
        key = (self.daemon.host, image.id, self._runtime)
        with _PROBING:
            if key not in _PROBED:
                async with self.open(BoxSpec(limits=LIMITS, ttl=120.0)) as box:
                    _PROBED[key] = await probe(box, LIMITS) | {"image"}
            return _PROBED[key]


async def _within(seconds: float, stage: str, work: Awaitable[_T]) -> _T:
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError as error:
        text = f"no box within {seconds:.0f} s: run fewer at once"
        raise CreateError(stage, text) from error


class _Made(NamedTuple):
    """A container with a connection to its supervisor; ``ours`` when it was made just now."""

    id: str
    connection: socket.socket
    ours: bool


def _made(api: Any, plan: settings.Plan) -> _Made:
    """A container that runs, or the one of that name that exists already."""
    from docker.errors import APIError
    from docker.types import LogConfig

    # Nothing is logged: what a supervisor says would be written to the daemon's disk.
    host = api.create_host_config(log_config=LogConfig(type="none"), **settings.host(plan))
    until = time.monotonic() + _READY_S
    while True:
        try:
            answer = api.create_container(host_config=host, **settings.container(plan))
            return _started(api, answer)
        except APIError as error:
            if error.status_code != 409 or not plan.spec.key or time.monotonic() > until:
                raise
        if found := _adopted(api, plan):
            return found
        time.sleep(_TURN_S)


def _started(api: Any, answer: Mapping[str, Any]) -> _Made:
    """Start what was created, or remove it."""
    ident = str(answer["Id"])
    try:
        if problem := settings.discarded(answer.get("Warnings") or []):
            raise CreateError("quota", f"the daemon cannot hold boxes to a limit: {problem}")
        streams = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
        # Before it starts, or what it complains about while it starts would be lost.
        connection = hijacked(api.attach_socket(ident, params=streams))
        api.start(ident)
    except BaseException:
        removed(api, ident)
        raise
    return _Made(ident, connection, ours=True)


def _adopted(api: Any, plan: settings.Plan) -> _Made | None:
    """The container of that name, with a supervisor of our own in it; none when it is only just
    being made, or removed."""
    from docker.errors import APIError

    try:
        facts = api.inspect_container(plan.name)
        if facts["Config"]["Labels"].get(settings.SHAPE) != settings.shape(plan):
            raise CreateError("start", f"{plan.name} exists with another image or other limits")
        ident = str(facts["Id"])
        if facts["State"]["Status"] == "created":
            api.start(ident)
        words = settings.command(plan.spec.ttl)
        job = api.exec_create(ident, words, stdin=True, user="0:0", workdir="/")
        connection = hijacked(api.exec_start(job["Id"], socket=True))
    except APIError as error:
        if error.status_code not in (404, 409):
            raise
        return None
    return _Made(ident, connection, ours=False)


def _fate(api: Any, ident: str) -> Fate:
    """What became of a container whose connection ended, and whether somebody asked for it."""
    from docker.errors import NotFound

    try:
        api.wait(ident, timeout=_END_S)
    except NotFound:  # an OSError as well, as are all errors of requests
        pass
    except OSError:  # a timeout of requests, which is no TimeoutError
        return Fate(gone=False)
    filters = {"container": ident, "event": ["oom", "die", *_ASKED_FOR]}
    now = int(time.time())
    events = list(api.events(since=now - 3600, until=now + 1, filters=filters, decode=True))
    if any(event["Actor"]["Attributes"].get("exitCode") == str(ORPHANED) for event in events):
        # The connection was lost first: by then its command had been ended for nobody's fault.
        return Fate(gone=False)
    actions = [event["Action"] for event in events]
    if "die" not in actions:
        # The daemon was started anew, or forgot: nobody knows, and nobody is to blame.
        return Fate(gone=True, by_us=True, text="it is gone, and the daemon does not know why")
    asked = [action for action in actions if action in _ASKED_FOR]
    if asked:
        return Fate(gone=True, by_us=True, text=f"removed from outside ({asked[0]})")
    # Commands cannot reach the supervisor; a box that has run out of memory can.
    return Fate(gone=True, oom="oom" in actions, text="its supervisor ended")
