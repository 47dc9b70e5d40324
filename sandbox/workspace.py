"""Host folders that boxes work in: made, removed whatever is inside, reaped after dead drivers."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from palestra.rl.errors import SandboxError
from palestra.sandbox.limits import stale_groups

_PREFIX = "palestra-"


def default_root() -> Path:
    """The folder that holds workspaces unless a provider is told otherwise."""
    return Path(tempfile.gettempdir())


def create(root: Path) -> Path:
    """Make ``palestra-<pid>-<random>`` below ``root``, readable by its owner only."""
    folder = root / f"{_PREFIX}{os.getpid()}-{secrets.token_hex(6)}"
    try:
        folder.mkdir(mode=0o700, parents=True)
    except OSError as error:
        raise SandboxError(f"cannot make a workspace: {error}") from error
    return folder


def remove(folder: Path) -> None:
    """Delete a workspace; a process that is still dying may write for a moment, so try again."""
    for _ in range(5):
        _unlock(folder)
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
    raise SandboxError(f"cannot remove the workspace {folder}")


def reap(root: Path | None = None) -> list[Path]:
    """Remove the workspaces (and cgroups) whose driver is dead; returns what was removed."""
    removed = [f for f in (root or default_root()).glob(_PREFIX + "*-*") if _orphan(f)]
    for folder in removed:
        remove(folder)
    for group in stale_groups():
        if _orphan(group):
            with suppress(OSError):
                group.rmdir()
    return removed


def _orphan(folder: Path) -> bool:
    owner = folder.name[len(_PREFIX) :].split("-")[0]
    if not owner.isdigit() or folder.is_symlink() or folder.stat().st_uid != os.getuid():
        return False
    try:
        os.kill(int(owner), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _unlock(folder: Path) -> None:
    """Give the owner back the folders it was locked out of; links are never followed."""
    pending = [folder]
    while pending:
        current = pending.pop()
        with suppress(OSError):
            if stat.S_IMODE(current.lstat().st_mode) & 0o700 != 0o700:
                current.chmod(0o700)
            with os.scandir(current) as entries:
                pending += [Path(e.path) for e in entries if e.is_dir(follow_symlinks=False)]
