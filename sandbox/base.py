"""What every backend of boxes offers: one protocol, one description of a box, errors by fault.

``rl.types.Sandbox`` is the part that episodes and graders see. Here is the rest: how a box is
described, made, found again, filled, emptied and removed. A backend implements ``create``, ``list``
and ``remove``; ``open`` is the same everywhere (``opening``).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

from palestra.rl.errors import SandboxError
from palestra.rl.types import Sandbox
from palestra.sandbox.limits import Limits


class CreateError(SandboxError):
    """A box could not be made; ``stage`` is queue, image, quota, schedule, permission or start."""

    def __init__(self, stage: str, text: str) -> None:
        super().__init__(f"{stage}: {text}")
        self.stage = stage


class BoxDied(SandboxError):
    """The box is gone or was restarted; ``by_agent`` when a command of the agent's was running and
    the machine reports no event of its own: then it is the agent's failure, never retried."""

    def __init__(self, text: str, *, by_agent: bool) -> None:
        super().__init__(text)
        self.by_agent = by_agent


class TransportError(SandboxError):
    """The way to the box failed. Whether a command ran is unknown: it is never sent again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxSpec:
    """How a box is to be. The environment is exactly ``env`` and what a shell needs.

    ``image`` is a container image, best by digest; empty means the backend's own (the root file
    system of this machine, read-only, for local backends; a configured default for others).
    ``network`` is closed: there is no other setting yet. ``ttl`` (seconds) is enforced by whoever
    keeps the box even when we are gone. ``key`` makes creation idempotent: the box of that name is
    adopted when it exists. ``labels`` say whose it is (``run``, ``task``, ``group``).

    Example: ``BoxSpec(limits=Limits(memory=1 << 30), labels={"run": "tiny-0"})``
    """

    image: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    ttl: float = 3600.0
    key: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A box as its backend lists it; ``owner_alive`` is False when its driver is certainly dead."""

    name: str
    labels: Mapping[str, str]
    age_s: float
    owner_alive: bool


class Box(Sandbox, Protocol):
    """A box with everything a pool, a grader and a task author need."""

    name: str

    async def put(self, files: Mapping[str, bytes]) -> None:
        """Write many files below the work folder at once; raises ``PathRefused``."""
        ...

    async def get(
        self, path: str = ".", *, max_files: int = 10_000, max_bytes: int = 64 << 20
    ) -> dict[str, bytes]:
        """The regular files below ``path``, by path relative to the work folder; links, devices and
        pipes are left out. Raises ``PathRefused`` above either limit."""
        ...

    async def freeze(self) -> None:
        """End every process in the box; files stay and can be read."""
        ...

    async def alive(self) -> bool:
        """True while commands can be run in this very box (not in a restarted one)."""
        ...

    async def close(self) -> None:
        """Remove the box and everything in it; harmless when repeated."""
        ...


class Backend(Protocol):
    """Makes boxes of one kind. ``guarantees`` are facts found by trying, not by reading versions.

    Implements ``rl.types.SandboxProvider``.
    """

    name: str
    guarantees: frozenset[str]

    async def create(self, spec: BoxSpec) -> Box:
        """A fresh box, or the one whose ``key`` it is. Raises ``CreateError``; a box that could not
        be handed over (a time-out, a cancellation) is removed, not forgotten."""
        ...

    async def list(self, labels: Mapping[str, str]) -> Sequence[Found]:
        """The boxes that carry all of ``labels``, whoever made them."""
        ...

    async def remove(self, name: str) -> None:
        """Remove a box by its name; harmless when it is gone."""
        ...

    def open(self, spec: BoxSpec | None = None) -> AbstractAsyncContextManager[Box]:
        """A box for the length of a ``with`` block; write it as ``return opening(self, spec)``."""
        ...


@asynccontextmanager
async def opening(backend: Backend, spec: BoxSpec | None = None) -> AsyncIterator[Box]:
    """A fresh box; leaving the block destroys it and all that ran in it, cancelled or not."""
    box = await backend.create(spec or BoxSpec())
    try:
        yield box
    finally:
        await completed(box.close())


async def reap(backend: Backend, labels: Mapping[str, str], *, older_s: float = 0.0) -> list[str]:
    """Remove the boxes with ``labels`` whose driver is dead or that are older than ``older_s``
    seconds (0: age does not matter); returns their names."""
    found = [
        box.name
        for box in await backend.list(labels)
        if not box.owner_alive or (older_s and box.age_s > older_s)
    ]
    for name in found:
        await backend.remove(name)
    return found


async def completed(work: Awaitable[None]) -> None:
    """Await ``work`` to its end even when we are cancelled meanwhile."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise
