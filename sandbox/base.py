"""What every backend of boxes offers: one protocol, one description of a box, errors by fault.

``rl.types.Sandbox`` is the part that episodes and graders see. Here is the rest: how a box is
described, made, found again, filled, emptied and removed. A backend implements ``create``, ``list``
and ``remove``; ``open`` is the same everywhere (``opening``).
"""

from __future__ import annotations

import asyncio
import math
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

from palestra.rl.errors import SandboxError, UserError
from palestra.rl.types import ExecResult, Image, Sandbox
from palestra.sandbox.limits import Limits

GUARANTEES: Mapping[str, str] = {
    "fs": "writes only below its own folders; of the machine only system files can be read",
    "no_net": "no network",
    "kill_tree": "nothing outlives the box, daemons included",
    "signals": "cannot signal processes outside",
    "no_new_privs": "setuid programs gain nothing",
    "user": "commands run as a user that is neither root nor ours",
    "pidns": "processes outside cannot be seen",
    "netns": "a network of its own, which is empty",
    "seccomp": "system calls that no agent needs are refused",
    "memory": "the memory of the whole box is bounded, and running out of it is reported",
    "pids": "the processes of the whole box are bounded",
    "tmp": "the whole of /tmp is bounded",
    "disk": "all that a box writes is bounded; otherwise each file is",
    "image": "made from container images",
}
"""What a backend may promise; without one, the contract tests say what holds instead."""

MAX_WORD = (128 << 10) - 1
MAX_WORDS = 1 << 20
"""Bytes of one word and of all words and variables of a command; Linux allows little more."""

FOLDER = "/workspace"
"""The work folder of containers whose ``BoxSpec`` names none."""

_SAFE_FOLDER = re.compile(r"(/[A-Za-z0-9_][A-Za-z0-9_.-]*){1,8}")
_SYSTEM = frozenset("bin boot dev etc lib lib32 lib64 libx32 proc run sbin sys tmp usr".split())
_KEY = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")


class CreateError(SandboxError):
    """A box could not be made; ``stage`` is queue, image, quota, schedule, permission or start, in
    a pool also create (it took too long) or ready (it did not answer)."""

    def __init__(self, stage: str, text: str) -> None:
        super().__init__(f"{stage}: {text}")
        self.stage = stage


class TransportError(SandboxError):
    """The way to the box failed. Whether a command ran is unknown: it is never sent again."""


class NotRemoved(SandboxError):
    """Some boxes could not be removed; ``removed`` are the names of those that were."""

    def __init__(self, text: str, removed: Sequence[str]) -> None:
        super().__init__(text)
        self.removed = removed


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxSpec:
    """How a box is to be. The environment is exactly ``env`` and what a shell needs.

    ``image`` is a container image, best by digest; empty means the backend's own (the root file
    system of this machine, read-only, for local backends; a configured default for others).
    ``folder`` is where the work folder lies in it (absolute; empty: /workspace), and hides what the
    image has there; ``scratch`` are more folders like /tmp. ``network`` is closed: there is no
    other setting yet. ``ttl`` (seconds) is enforced by whoever keeps the box even when we are gone.
    ``key`` makes creation idempotent: the box of that name is adopted when it exists (small
    letters, digits and dashes, at most 40). ``labels`` say whose it is (``run``, ``task``,
    ``group``).

    Example: ``BoxSpec(limits=Limits(memory=1 << 30), labels={"run": "tiny-0"})``
    """

    image: str = ""
    folder: str = ""
    scratch: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    ttl: float = 3600.0
    key: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A box as its backend lists it; ``owner_alive`` is False when its driver is certainly dead,
    ``expired`` is True when its time to live is over."""

    name: str
    labels: Mapping[str, str]
    age_s: float
    owner_alive: bool
    expired: bool = False


class Box(Sandbox, Protocol):
    """A box with everything a pool, a grader and a task author need."""

    name: str

    async def get(
        self, path: str = ".", *, max_files: int = 10_000, max_bytes: int = 64 << 20
    ) -> dict[str, bytes]:
        """The bytes of the files of ``tree``; raises as that does."""
        ...

    async def alive(self) -> bool:
        """True while commands can be run in this very box (not in a restarted one)."""
        ...

    async def close(self) -> None:
        """Remove the box and everything in it; harmless when repeated."""
        ...


class Keeper(Protocol):
    """Knows the boxes that exist, whoever made them."""

    async def list(self, labels: Mapping[str, str]) -> Sequence[Found]:
        """The boxes that carry all of ``labels``; those being removed may be left out."""
        ...

    async def remove(self, name: str) -> None:
        """Remove a box by its name; harmless when it is gone."""
        ...


class Backend(Keeper, Protocol):
    """Makes boxes of one kind. ``guarantees`` are keys of ``GUARANTEES``: facts found by trying,
    not by reading versions. Implements ``rl.types.SandboxProvider``.
    """

    name: str
    guarantees: frozenset[str]

    async def create(self, spec: BoxSpec) -> Box:
        """A fresh box, or the one whose ``key`` it is. Raises ``CreateError``; a box that could not
        be handed over (a time-out, a cancellation) is removed, not forgotten."""
        ...

    def open(self, spec: BoxSpec | Image | None = None, /) -> AbstractAsyncContextManager[Box]:
        """A box for the length of a ``with`` block; write it as
        ``return opening(self, asked(spec, own))`` with the ``BoxSpec`` of boxes that nobody
        describes."""
        ...


def asked(spec: BoxSpec | Image | None, own: BoxSpec) -> BoxSpec:
    """The box that is asked for: ``own``, or one like it that is made of an image."""
    if not isinstance(spec, Image):
        return spec or own
    env = {**own.env, **spec.env}
    return replace(own, image=spec.name, folder=spec.folder, scratch=spec.scratch, env=env)


def work_folder(spec: BoxSpec) -> str:
    """Where the work folder of a container is; raises ``UserError`` for a path that is not safe,
    of this or of ``scratch``."""
    folder = spec.folder or FOLDER
    for path in (folder, *spec.scratch):
        if not _SAFE_FOLDER.fullmatch(path) or path.split("/")[1] in _SYSTEM:
            raise UserError(
                f"{path!r} cannot be a work folder: an absolute path, not of the system"
            )
    return folder


@asynccontextmanager
async def opening(backend: Backend, spec: BoxSpec) -> AsyncIterator[Box]:
    """A fresh box; leaving the block destroys it and all that ran in it, cancelled or not."""
    box = await backend.create(spec)
    try:
        yield box
    finally:
        await completed(box.close())


async def reap(
    keeper: Keeper, labels: Mapping[str, str], *, older_s: float = math.inf
) -> list[str]:
    """Remove the boxes with ``labels`` whose driver is dead, whose time to live is over or that are
    older than ``older_s`` seconds (0: all of them); returns their names. Raises ``NotRemoved``
    after it has tried all, and ``SandboxError`` where they cannot be listed."""
    found = [
        box.name
        for box in await keeper.list(labels)
        if not box.owner_alive or box.expired or box.age_s >= older_s
    ]
    removed: list[str] = []
    problems: list[str] = []
    for name in found:
        try:
            await keeper.remove(name)
            removed.append(name)
        except SandboxError as error:
            problems.append(str(error))
    if problems:
        raise NotRemoved(f"{len(problems)} of {len(found)} not removed: {problems[0]}", removed)
    return removed


def box_name(spec: BoxSpec) -> str:
    """``palestra-KEY``, or a fresh name; fixed before anything is made. Raises ``UserError``."""
    if spec.key and not _KEY.fullmatch(spec.key):
        raise UserError(f"{spec.key!r} cannot name a box: small letters, digits, dashes, up to 40")
    return f"palestra-{spec.key or secrets.token_hex(8)}"


def as_words(argv: Sequence[str] | str) -> Sequence[str]:
    """The words of a command; a string is a line for ``/bin/sh``."""
    return ("/bin/sh", "-c", argv) if isinstance(argv, str) else argv


def refused(argv: Sequence[str], env: Mapping[str, str]) -> ExecResult | None:
    """How a command ends that no kernel would start: exit code 126, like in a shell.

    Agents choose the words of commands, so this is data on every backend, never a fault of ours.
    """
    problem = _problem([*argv, *(f"{name}={value}" for name, value in env.items())])
    if not argv:
        problem = "no command"
    return ExecResult(exit_code=126, stderr=f"{problem}\n".encode()) if problem else None


def _problem(words: Sequence[str]) -> str:
    try:
        sizes = [len(word.encode()) for word in words]
    except UnicodeEncodeError:
        return "not UTF-8"
    if any("\0" in word for word in words):
        return "NUL in a word"
    too_long = max(sizes, default=0) > MAX_WORD or sum(sizes) + len(sizes) > MAX_WORDS
    return "argument list too long" if too_long else ""


async def completed(work: Awaitable[None]) -> None:
    """Await ``work`` to its end even when we are cancelled meanwhile, however often."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled:
        raise cancelled from task.exception()
    task.result()
