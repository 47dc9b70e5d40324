"""A box that is reached over a ``Link``: the same for every backend whose boxes are containers."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from palestra.rl.errors import BoxDied, PathRefused, SandboxError
from palestra.rl.types import ExecResult, File
from palestra.sandbox import seccomp
from palestra.sandbox.base import (
    BoxSpec,
    TransportError,
    as_words,
    completed,
    refused,
    work_folder,
)
from palestra.sandbox.inbox import FREEZE, NO_PROCESS, OOM, PING
from palestra.sandbox.link import Answer, Link, LinkLost, Unfinished
from palestra.sandbox.process import REPORT_BYTES, REPORT_VARIABLE

if TYPE_CHECKING:
    from palestra.sandbox.inbox_processes import Config

USER = (10001, 10001)
"""User and group of commands."""

_HEAD = 4096
# A connection that is lost is noticed by itself; this is for a supervisor that lives, but hardly
# ever gets a processor: a fork bomb on a busy node, in a box that has little of it reserved.
_GRACE_S = 60.0
_TRANSFER_S = 120.0
_ALIVE_S = 5.0
_MAX_WRITE = 64 << 20
_PATH = 4096
# Of what the head of an answer says of a file: two sizes and a bit.
_FACTS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What the keeper of a box knows of its end: ``gone``, and ``by_us`` when it was asked to or
    has an event of its own to report; ``oom`` when all of it was ended for want of memory."""

    gone: bool
    by_us: bool = False
    oom: bool = False
    text: str = ""


Inquire: TypeAlias = Callable[[], Awaitable[Fate]]
"""Asks the keeper of a box what became of it; raises ``TransportError``."""


def configuration(spec: BoxSpec, *, machine: str, ttl: float, orphan_s: float) -> Config:
    """What a supervisor is told. ``machine`` is the architecture that it runs on (the filter of
    system calls is left out for those we have none for); after its connection ends it stays for
    ``orphan_s`` seconds."""
    folder = work_folder(spec)
    return {
        "user": USER,
        "folder": folder,
        "env": {"HOME": folder, "LANG": "C.UTF-8", "TMPDIR": "/tmp"},
        "rlimits": {"RLIMIT_CORE": 0, "RLIMIT_FSIZE": spec.limits.files, "RLIMIT_NOFILE": 4096},
        "filter": seccomp.build(machine=machine) if seccomp.available(machine) else b"",
        "ttl": ttl,
        "orphan_s": orphan_s,
        "report": (REPORT_VARIABLE, REPORT_BYTES),
    }


class _Starved(BoxDied):
    """The box is gone because its memory was used up: the result of what ran, an error from then
    on."""


class RemoteBox:
    """A box whose supervisor is at the other end of ``link``; see ``base.Box``.

    ``inquire`` says what became of it when the connection ends, ``remove`` removes it.
    """

    def __init__(
        self,
        name: str,
        spec: BoxSpec,
        link: Link,
        *,
        inquire: Inquire,
        remove: Callable[[], Awaitable[None]],
    ) -> None:
        self.name = name
        self._spec = spec
        self._link = link
        self._inquire = inquire
        self._remove = remove
        self._running = 0
        self._problem = ""
        self._died: SandboxError | None = None

    async def exec(
        self,
        argv: Sequence[str] | str,
        *,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        timeout: float = 10.0,
        max_output: int = 65_536,
        report: bool = False,
    ) -> ExecResult:
        """Run a command in the work folder; see ``Sandbox.exec``.

        Raises ``BoxDied`` when the box is gone, frozen or past its time to live, and
        ``TransportError`` when it does not answer, which removes it.
        """
        words, given = as_words(argv), {**self._spec.env, **(env or {})}
        if unfit := refused(words, given):
            return unfit
        if self._problem:
            raise BoxDied(f"{self.name}: {self._problem}", by_agent=False)
        head: dict[str, object] = {"do": "run", "argv": [*words], "env": given, "report": report}
        head |= {"timeout": timeout, "max_output": max_output}
        room = _HEAD + 2 * max_output + REPORT_BYTES
        self._running += 1
        try:
            answer = await self._call(head, stdin, room=room, within=timeout + _GRACE_S)
        except Unfinished as unfinished:
            ended = _unfinished(unfinished)
            if not report or not ended.signal:
                return ended
            # Without its report nobody could tell it from one that had nothing to say.
            await self.close()
            text = f"{self.name}: the report was lost by the command's doing"
            raise BoxDied(text, by_agent=True) from unfinished
        except _Starved:
            if report:
                raise
            return ExecResult(signal=9, oom=True)
        finally:
            self._running -= 1
        if fault := answer.head["fault"]:
            await self.close()
            raise SandboxError(f"{self.name}: {fault}")
        return _result(answer)

    async def read(self, path: str, *, max_bytes: int = 1 << 20) -> bytes:
        """Read a regular file below the work folder; raises ``PathRefused``."""
        found = await self._files(
            {"do": "read", "path": path, "max_bytes": max_bytes}, room=_PATH + max_bytes
        )
        return found[path].data

    async def write(self, path: str, data: bytes) -> None:
        """Write a file below the work folder; raises ``PathRefused``."""
        await self.put({path: data})

    async def put(
        self, files: Mapping[str, bytes], *, executable: Collection[str] = frozenset()
    ) -> None:
        """Write many files below the work folder; raises ``PathRefused``."""
        for batch in _batches(files):
            named = [(path, len(data), path in executable) for path, data in batch.items()]
            await self._files({"do": "put", "files": named}, b"".join(batch.values()))

    async def tree(
        self,
        path: str = ".",
        *,
        skip: Collection[str] = (),
        max_files: int = 10_000,
        max_bytes: int = 64 << 20,
    ) -> dict[str, File]:
        """The regular files below ``path``; see ``Sandbox.tree``. Raises ``PathRefused``."""
        head = {"do": "get", "path": path, "max_files": max_files, "max_bytes": max_bytes}
        return await self._files({**head, "skip": [*skip]}, room=max_bytes + _FACTS * max_files)

    async def get(
        self, path: str = ".", *, max_files: int = 10_000, max_bytes: int = 64 << 20
    ) -> dict[str, bytes]:
        """The bytes of the files of ``tree``; raises as that does."""
        found = await self.tree(path, max_files=max_files, max_bytes=max_bytes)
        return {name: file.data for name, file in found.items()}

    async def freeze(self) -> None:
        """End every process in the box, for good; files can still be read."""
        self._problem = self._problem or "it is frozen"
        try:
            async with asyncio.timeout(_GRACE_S):
                left = await self._link.signal(FREEZE)
        except (LinkLost, TimeoutError) as error:
            raise await self._ended(error, running=False) from error
        if left:
            await self.close()
            raise SandboxError(f"{self.name}: {left} processes do not die; it was removed")

    async def alive(self) -> bool:
        """True while commands can be run in this very box."""
        if self._problem:
            return False
        try:
            async with asyncio.timeout(_ALIVE_S):
                return await self._link.signal(PING) == 0
        except (LinkLost, TimeoutError):
            return False

    async def close(self) -> None:
        """Remove the box and everything in it; harmless when repeated."""
        self._problem = "it was removed"
        self._link.close()
        await completed(self._remove())

    async def _files(
        self, head: Mapping[str, object], body: bytes = b"", *, room: int = 0
    ) -> dict[str, File]:
        head = {**head, "sha256": hashlib.sha256(body).hexdigest()}
        try:
            answer = await self._call(head, body, room=_HEAD + room, within=_TRANSFER_S)
        except Unfinished as unfinished:
            raise PathRefused(f"{self.name}: the transfer was ended inside") from unfinished
        if "damaged" in answer.head:
            raise TransportError(f"{self.name}: bytes were changed on their way")
        if "refused" in answer.head:
            raise PathRefused(answer.head["refused"])
        return _found(answer)

    async def _call(
        self, head: Mapping[str, object], body: bytes, *, room: int, within: float
    ) -> Answer:
        if self._died is not None:
            raise self._died
        try:
            async with asyncio.timeout(within):
                return await self._link.call(dict(head), body, room=room)
        except (LinkLost, TimeoutError) as error:
            raise await self._ended(error, running=head["do"] == "run") from error

    async def _ended(self, error: LinkLost | TimeoutError, *, running: bool) -> SandboxError:
        """Why the box can no longer be used; what is left of it is removed."""
        if self._problem == "it was removed":
            return BoxDied(f"{self.name}: it was removed", by_agent=False)
        died = await self._explained(error, running=running or self._running > 0)
        if self._died is None:
            self._died, self._problem = BoxDied(str(died), by_agent=True), str(died)
            if not isinstance(died, _Starved):
                self._died = died
            self._link.close()
            await completed(self._remove())
        return died

    async def _explained(self, error: LinkLost | TimeoutError, *, running: bool) -> SandboxError:
        if isinstance(error, TimeoutError):
            return TransportError(f"{self.name}: no answer; whether a command ran is unknown")
        if error.bye:
            return BoxDied(f"{self.name}: {error}", by_agent=False)
        fate = await self._inquire()
        if not fate.gone:
            return TransportError(f"{self.name}: {error}; whether a command ran is unknown")
        died = _Starved if fate.oom and running else BoxDied
        return died(f"{self.name}: {fate.text or error}", by_agent=running and not fate.by_us)


def _result(answer: Answer) -> ExecResult:
    head, body = answer
    out, err, report = head["sizes"]
    return ExecResult(
        exit_code=head["exit_code"],
        signal=head["signal"],
        timed_out=head["timed_out"],
        oom=head["oom"],
        stdout=bytes(body[:out]),
        stderr=bytes(body[out : out + err]),
        report=bytes(body[out + err : out + err + report]),
        elided=head["elided"],
        wall_s=head["wall_s"],
    )


def _found(answer: Answer) -> dict[str, File]:
    """The files of an answer, whose body is their paths and then their bytes."""
    sizes, body = answer.head["files"], answer.body
    paths: list[str] = []
    at = 0
    for length, _, _ in sizes:
        paths.append(bytes(body[at : at + length]).decode(errors="surrogateescape"))
        at += length
    found: dict[str, File] = {}
    for path, (_, size, executable) in zip(paths, sizes, strict=True):
        found[path] = File(data=bytes(body[at : at + size]), executable=executable)
        at += size
    return found


def _unfinished(unfinished: Unfinished) -> ExecResult:
    """How a command ended whose supervisor could not tell: all of it is the command's doing."""
    if unfinished.status == NO_PROCESS:
        return ExecResult(exit_code=126, stderr=b"the box has no process left\n")
    # A kernel without memory for the box killed it, or the command did where that is possible.
    oom = bool(unfinished.status & OOM)
    return ExecResult(signal=(unfinished.status & 0x7F) or 9, oom=oom)


def _batches(files: Mapping[str, bytes]) -> Iterator[dict[str, bytes]]:
    """``files`` in portions that fit into one request."""
    batch: dict[str, bytes] = {}
    room = _MAX_WRITE
    for path, data in files.items():
        if len(data) > _MAX_WRITE:
            raise PathRefused(f"{path}: larger than {_MAX_WRITE} bytes")
        if len(data) > room:
            yield batch
            batch, room = {}, _MAX_WRITE
        batch[path] = data
        room -= len(data)
    if batch:
        yield batch
