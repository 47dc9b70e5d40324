"""The boxes on a Docker daemon, whoever made them: listing and removing, without making any."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from palestra.sandbox import docker_settings as settings
from palestra.sandbox.base import CreateError, Found, TransportError
from palestra.sandbox.docker_daemon import Daemon, DaemonFault
from palestra.sandbox.owner import Owner

_GONE_S = 60.0
_T = TypeVar("_T")


class DockerKeeper:
    """Knows the boxes on the daemon at ``host`` (empty: ``DOCKER_HOST``, or the usual socket);
    ``workers`` calls run at once. Raises ``CreateError`` when there is none.

    Example: ``await reap(DockerKeeper(), {"run": "tiny-0"})``
    """

    def __init__(self, host: str = "", *, workers: int = 16) -> None:
        try:
            self.daemon = Daemon(host, workers=workers)
        except DaemonFault as fault:
            raise CreateError(fault.stage, str(fault)) from fault

    async def list(self, labels: Mapping[str, str]) -> Sequence[Found]:
        """The boxes on this daemon that carry all of ``labels``; raises ``TransportError``."""
        return await self.told(partial(_listed, labels=labels))

    async def remove(self, name: str) -> None:
        """Remove a box and its volumes; harmless when it is gone. Raises ``TransportError``."""
        await self.told(partial(removed, ident=name))

    async def told(self, work: Callable[[Any], _T]) -> _T:
        """What the daemon answers to ``work(api)``; raises ``TransportError``."""
        try:
            return await self.daemon.call(work)
        except DaemonFault as fault:
            raise TransportError(f"docker: {fault}") from fault


def removed(api: Any, ident: str) -> None:
    """Remove a container by name or id, and wait until it is gone."""
    from docker.errors import APIError, NotFound

    with suppress(NotFound):
        try:
            api.remove_container(ident, v=True, force=True)
        except APIError as error:
            if error.status_code != 409:
                raise
            api.wait(ident, timeout=_GONE_S, condition="removed")  # by somebody else


def _listed(api: Any, labels: Mapping[str, str]) -> list[Found]:
    wanted = [settings.BOX, *(f"{settings.LABEL}{name}={labels[name]}" for name in labels)]
    now = time.time()
    return [
        Found(
            name=entry["Names"][0].lstrip("/"),
            labels=settings.told(entry["Labels"]),
            age_s=now - entry["Created"],
            owner_alive=_owned(api, entry),
            expired=now >= float(entry["Labels"].get(settings.EXPIRES, "inf")),
        )
        for entry in api.containers(all=True, filters={"label": wanted})
        if entry["State"] not in ("removing", "dead") and entry["Names"]
    ]


def _owned(api: Any, entry: Mapping[str, Any]) -> bool:
    """Whether the driver may live. Labels cannot be changed, so who adopted the box is not in them:
    but its connection runs in the box."""
    from docker.errors import NotFound

    try:
        if Owner.parse(entry["Labels"].get(settings.OWNER, "")).alive:
            return True
        jobs = api.inspect_container(entry["Id"]).get("ExecIDs") or ()
        return any(api.exec_inspect(job)["Running"] for job in jobs)
    except (ValueError, NotFound):
        return True
