"""Images of one daemon: a name is looked up or pulled once, and stays what it was then."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal, NamedTuple

from palestra.sandbox.base import CreateError
from palestra.sandbox.docker_daemon import Daemon, DaemonFault, understood
from palestra.sandbox.images import mirrored


class Image(NamedTuple):
    """A pinned image: its id (a digest), and the folders that it declares as volumes."""

    id: str
    volumes: tuple[str, ...]


class Images:
    """Finds images by name. ``mirrors`` are prefixes of names and what to put in their place.

    With ``pull="missing"`` an image that the daemon lacks is pulled, ``at_once`` at a time, each
    within ``pull_s`` seconds, waiting included; an image that many boxes want is pulled once.
    """

    def __init__(
        self,
        daemon: Daemon,
        *,
        pull: Literal["never", "missing"] = "never",
        mirrors: Mapping[str, str] | None = None,
        at_once: int = 2,
        pull_s: float = 600.0,
    ) -> None:
        self._daemon = daemon
        self._pull = pull
        self._mirrors = dict(mirrors or {})
        self._pull_s = pull_s
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix="docker-pull")
        self._lock = threading.Lock()
        self._found: dict[str, Image] = {}
        self._pulling: dict[str, Future[None]] = {}

    async def pinned(self, image: str) -> Image:
        """The image of that name, the same one each time; raises ``CreateError``."""
        if not image:
            raise CreateError("image", "no image: set sandbox.image")
        try:
            # Two who look at once may see two images: the first one's is for both.
            return self._found.get(image) or self._found.setdefault(
                image, await self._resolved(image, mirrored(image, self._mirrors))
            )
        except DaemonFault as fault:
            raise CreateError(fault.stage, f"{image}: {fault}") from fault

    async def _resolved(self, image: str, name: str) -> Image:
        found = await self._daemon.call(lambda api: _inspected(api, name))
        if found is None and self._pull == "missing":
            try:
                async with asyncio.timeout(self._pull_s):
                    await asyncio.shield(asyncio.wrap_future(self._pulled(name)))
            except TimeoutError as error:
                text = f"pull of {name} takes longer than {self._pull_s:.0f} s"
                raise CreateError("image", f"{text}: pull it beforehand") from error
            found = await self._daemon.call(lambda api: _inspected(api, name))
        if found is None:
            text = f"not on this daemon: `docker pull {name}`, or set sandbox.pull to missing"
            raise CreateError("image", f"{image} is {text}")
        return found

    def _pulled(self, name: str) -> Future[None]:
        deadline = time.monotonic() + self._pull_s
        with self._lock:
            known = self._pulling.get(name)
            if known is None or known.done():
                known = self._pulling[name] = self._pool.submit(
                    self._daemon.now,
                    lambda api: _consume(api.pull(name, stream=True, decode=True), deadline),
                )
            return known


def _inspected(api: Any, name: str) -> Image | None:
    from docker.errors import ImageNotFound

    try:
        facts = api.inspect_image(name)
    except ImageNotFound:
        return None
    return Image(str(facts["Id"]), tuple((facts.get("Config") or {}).get("Volumes") or ()))


def _consume(progress: Iterable[Mapping[str, Any]], deadline: float) -> None:
    """See a pull to its end, or leave at ``deadline`` (monotonic seconds): the connection closes
    and the daemon stops."""
    for line in progress:
        if "error" in line:
            raise understood(str(line["error"]))
        if time.monotonic() > deadline:
            return
