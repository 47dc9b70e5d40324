"""Plain child processes: no isolation at all, for people who asked for it by name."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from palestra.sandbox import workspace
from palestra.sandbox.base import BoxSpec
from palestra.sandbox.limits import Limits
from palestra.sandbox.local import SEARCH_PATH, Launch
from palestra.sandbox.local_backend import LocalBackend
from palestra.sandbox.process import Command


class UnsafeLocal(LocalBackend):
    """Runs commands as ordinary processes of this user; says so on stderr at every start.

    Example: ``async with UnsafeLocal().open() as box: await box.exec("echo hello")``
    """

    name = "unsafe-local"
    guarantees: frozenset[str] = frozenset()

    def __init__(self, *, root: Path | None = None, limits: Limits | None = None) -> None:
        super().__init__(root=root, limits=limits)
        sys.stderr.write(
            "warning: --unsafe-local: agent code runs without any isolation; nothing is protected\n"
        )

    def launch(self, folder: Path, spec: BoxSpec) -> Launch:
        """The command itself, in its own process group."""
        work, tmp = folder / "work", str(workspace.furnish(folder, "tmp"))
        base = {"PATH": SEARCH_PATH, "HOME": str(work), "LANG": "C.UTF-8", "TMPDIR": tmp}

        def wrap(argv: Sequence[str], env: Mapping[str, str], status: int) -> Command:
            # The prologue's shell sees this environment, so nothing of ours may be steered by it.
            words = ["/usr/bin/env", "-i", *(f"{k}={v}" for k, v in {**base, **env}.items())]
            return Command(argv=[*words, *argv], cwd=work)

        return Launch(wrap=wrap)
