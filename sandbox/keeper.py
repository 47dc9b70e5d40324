"""The boxes of this machine that exist, whoever made them: listing, removing, reaping."""

from __future__ import annotations

import asyncio
import atexit
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from palestra.rl.errors import SandboxError
from palestra.sandbox import workspace
from palestra.sandbox.base import Found
from palestra.sandbox.limits import groups_gone, remove_groups
from palestra.sandbox.owner import Owner

_ROOTS: set[Path] = set()


class LocalKeeper:
    """Knows the local boxes below ``root``, of every local backend; starts nothing.

    Example: ``await reap(LocalKeeper(), {"run": "tiny-0"})``
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or workspace.default_root()
        _ROOTS.add(self.root)

    async def list(self, labels: Mapping[str, str]) -> Sequence[Found]:
        """The boxes that carry all of ``labels``; those of other users are not seen."""
        now = time.time()
        return [
            Found(
                name=name,
                labels=record.labels,
                age_s=now - record.made,
                owner_alive=record.owner.alive,
                expired=record.expired,
            )
            for name, record in workspace.records(self.root)
            if labels.items() <= record.labels.items()
        ]

    async def remove(self, name: str) -> None:
        """End what runs in a box and delete it; harmless when it is gone.

        Without cgroups only the driver that made a box can end its commands. Raises
        ``SandboxError``.
        """
        await asyncio.to_thread(destroy, self.root, name)


def destroy(root: Path, name: str) -> None:
    """Remove a box below ``root``: processes first, its record last."""
    if workspace.condemn(root, name):
        remove_groups(name)
        workspace.remove(root, name)


def destroyed_at_once(root: Path, name: str) -> bool:
    """Remove a condemned box that nothing runs in and that holds no file, which takes no waiting;
    False where that is not enough and ``destroy`` is needed."""
    return groups_gone(name) and workspace.removed_empty(root, name)


def reap(root: Path | None = None) -> Sequence[str]:
    """Remove the boxes whose driver is dead or whose time to live is over, as far as they can be:
    what another driver left must not keep this one from its work. Returns their names."""
    root = root or workspace.default_root()
    found = [name for name, record in workspace.records(root) if record.orphan]
    for name in found:
        with suppress(SandboxError):
            destroy(root, name)
    return [name for name in found if not (root / name).exists()]


@atexit.register
def _leave() -> None:
    """Remove what this process made and did not close; not in a fork of it, which owns nothing."""
    me = Owner.me()
    for root in _ROOTS:
        for name, record in workspace.records(root):
            if record.owner == me:
                with suppress(SandboxError):
                    destroy(root, name)
