"""Used boxes of this machine made as new: their processes ended, their folders replaced.

That is all there is to a box whose every command has namespaces, a /tmp and a /dev/shm of its own;
nothing is run inside, and nothing of the old folders is kept, not even what they were.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

from palestra.rl.errors import SandboxError
from palestra.sandbox import workspace
from palestra.sandbox.base import Box
from palestra.sandbox.local import LocalBox

NEEDED = frozenset({"fs", "kill_tree", "pidns", "netns", "tmp", "seccomp", "pids"})
"""Guarantees without which a used box may have left something outside of its folders, or have a
process left that nobody sees."""

_MEMORY = 32 << 20
_WAITS = 50


async def reset(box: Box, user: int | None) -> None:
    """End what runs in ``box`` and give it new, empty folders that belong to ``user``.

    Raises ``SandboxError`` while a process is left, ``OSError`` when a folder cannot be replaced.
    """
    assert isinstance(box, LocalBox)
    await box.end_commands()
    for _ in range(_WAITS):
        if not box.cgroup.members:
            break
        await asyncio.sleep(0.01)  # what bwrap started ends a moment after it
    else:
        raise SandboxError(f"{box.name}: processes do not die")
    await asyncio.to_thread(workspace.renew, box.folder.parent, user)


def fingerprint(box: Box) -> str:
    """What lies in the folder of a box, to whom it belongs, and what its cgroup holds: of memory,
    only what is worth mentioning."""
    assert isinstance(box, LocalBox)
    folder = box.folder.parent
    facts = {path.name: _facts(path) for path in sorted(folder.iterdir())}
    return json.dumps([facts, sorted(box.cgroup.members), box.cgroup.used // _MEMORY])


def _facts(path: Path) -> list[object]:
    if path.name == workspace.RECORD:
        return []
    info = path.lstat()
    inside = sorted(entry.name for entry in path.iterdir())
    attributes = sorted(os.listxattr(path, follow_symlinks=False))
    return [info.st_mode, info.st_uid, info.st_gid, attributes, inside]
