"""How the backends of this machine make boxes: a folder with its record, a cgroup, a launch."""

from __future__ import annotations

import errno
import shutil
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from palestra.rl.types import Image
from palestra.sandbox import workspace
from palestra.sandbox.base import Box, BoxSpec, CreateError, asked, box_name, opening
from palestra.sandbox.keeper import LocalKeeper, destroy
from palestra.sandbox.limits import Limits
from palestra.sandbox.local import Launch, LocalBox

_STAGES = {
    errno.ENOSPC: "quota",
    errno.EDQUOT: "quota",
    errno.EACCES: "permission",
    errno.EPERM: "permission",
    errno.EROFS: "permission",
}


class LocalBackend(LocalKeeper):
    """A backend of this machine; the rest of it says how commands are launched.

    Boxes are folders below ``root``; ``limits`` are those of boxes opened without a ``BoxSpec``.
    ``user`` is the number of the user that owns what is in a box, if that is not ours.
    """

    name: str
    guarantees: frozenset[str]
    user: int | None = None
    places: bool = False
    """Whether the work folder can lie anywhere in a box, and further folders beside it."""

    def __init__(self, *, root: Path | None = None, limits: Limits | None = None) -> None:
        super().__init__(root)
        self.limits = limits or Limits()

    def launch(self, folder: Path, spec: BoxSpec) -> Launch:
        """How commands run in the box of this folder, which holds ``work`` and ``tmp``."""
        raise NotImplementedError

    def open(self, spec: BoxSpec | Image | None = None, /) -> AbstractAsyncContextManager[Box]:
        """A box for the length of a ``with`` block; raises ``CreateError``."""
        return opening(self, asked(spec, BoxSpec(limits=self.limits)))

    async def create(self, spec: BoxSpec) -> LocalBox:
        """A fresh box, or the one whose ``key`` it is; raises ``CreateError``.

        Nothing in here waits, so a cancellation finds the box made or not begun.
        """
        if spec.image:
            raise CreateError("image", f"{self.name} boxes are not made from images: {spec.image}")
        if spec.folder and not self.places:
            raise CreateError("image", f"{self.name} boxes have no work folder at {spec.folder}")
        name = box_name(spec)
        try:
            self._admit(spec.limits)
            record = self._recorded(name, spec)
        except OSError as error:
            raise _failed(error) from error
        try:
            return LocalBox(self.root, name, record, spec, self.launch(self.root / name, spec))
        except OSError as error:
            destroy(self.root, name)
            raise _failed(error) from error

    def _recorded(self, name: str, spec: BoxSpec) -> workspace.Record:
        record = workspace.Record.fresh(spec.labels, ttl=spec.ttl)
        try:
            workspace.create(self.root, name, record, user=self.user)
        except FileExistsError:
            return workspace.take_over(self.root, name, record)
        return record

    def _admit(self, limits: Limits) -> None:
        """Refuse a box on a disk that its first large file would fill."""
        self.root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.root).free
        if free < limits.files:
            raise CreateError("quota", f"{free >> 20} MiB free in {self.root}")


def _failed(error: OSError) -> CreateError:
    return CreateError(_STAGES.get(error.errno or 0, "start"), str(error))
