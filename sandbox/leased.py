"""A box that is used for a while and given back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

from palestra.rl.errors import BoxDied, SandboxError
from palestra.rl.types import ExecResult, File
from palestra.sandbox.base import Box


class Leased:
    """``box`` until it is given back: from then on every call raises ``BoxDied``, whatever has
    become of the box. ``sound`` is False once a call failed for a fault of the box.

    ``remove`` is what ``close`` does.
    """

    def __init__(self, box: Box, remove: Callable[[], Awaitable[None]]) -> None:
        self.name = box.name
        self.sound = True
        self._box = box
        self._remove = remove
        self._over = False

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
        """See ``Sandbox.exec``."""
        with self._use() as box:
            return await box.exec(
                argv, stdin=stdin, env=env, timeout=timeout, max_output=max_output, report=report
            )

    async def read(self, path: str, *, max_bytes: int = 1 << 20) -> bytes:
        """See ``Sandbox.read``."""
        with self._use() as box:
            return await box.read(path, max_bytes=max_bytes)

    async def write(self, path: str, data: bytes) -> None:
        """See ``Sandbox.write``."""
        with self._use() as box:
            await box.write(path, data)

    async def put(
        self, files: Mapping[str, bytes], *, executable: Collection[str] = frozenset()
    ) -> None:
        """See ``Sandbox.put``."""
        with self._use() as box:
            await box.put(files, executable=executable)

    async def tree(
        self,
        path: str = ".",
        *,
        skip: Collection[str] = (),
        max_files: int = 10_000,
        max_bytes: int = 64 << 20,
    ) -> dict[str, File]:
        """See ``Sandbox.tree``."""
        with self._use() as box:
            return await box.tree(path, skip=skip, max_files=max_files, max_bytes=max_bytes)

    async def get(
        self, path: str = ".", *, max_files: int = 10_000, max_bytes: int = 64 << 20
    ) -> dict[str, bytes]:
        """See ``Box.get``."""
        with self._use() as box:
            return await box.get(path, max_files=max_files, max_bytes=max_bytes)

    async def freeze(self) -> None:
        """See ``Box.freeze``."""
        self.sound = False
        with self._use() as box:
            await box.freeze()

    async def alive(self) -> bool:
        """True while commands can be run in this very box."""
        return not self._over and await self._box.alive()

    async def close(self) -> None:
        """Remove the box and everything in it; harmless when repeated."""
        self.end()
        await self._remove()

    def end(self) -> None:
        """From now on the box is somebody else's, or nobody's."""
        self._over = True

    @contextmanager
    def _use(self) -> Iterator[Box]:
        if self._over:
            raise BoxDied(f"{self.name}: it was removed", by_agent=False)
        try:
            yield self._box
        except SandboxError:
            self.sound = False
            raise
