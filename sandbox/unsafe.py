"""Plain child processes: no isolation at all, for people who asked for it by name."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from palestra.rl.types import Sandbox
from palestra.sandbox import workspace
from palestra.sandbox.limits import Cgroup, Limits
from palestra.sandbox.local import SEARCH_PATH, LocalBox, opened
from palestra.sandbox.process import Command


class UnsafeLocal:
    """Runs commands as ordinary processes of this user; warns on stderr when constructed."""

    name = "unsafe-local"
    guarantees: frozenset[str] = frozenset()

    def __init__(self, *, root: Path | None = None, limits: Limits | None = None) -> None:
        self._root = root or workspace.default_root()
        self._limits = limits or Limits()
        sys.stderr.write("warning: --unsafe-local: agent code runs without any isolation\n")

    def open(self) -> AbstractAsyncContextManager[Sandbox]:
        """A fresh work folder; raises ``SandboxError`` when it cannot be made."""
        return opened(self._root, self._limits, self._build)

    def _build(self, folder: Path, cgroup: Cgroup) -> LocalBox:
        base = {"PATH": SEARCH_PATH, "HOME": str(folder), "LANG": "C.UTF-8", "TMPDIR": "/tmp"}

        def wrap(argv: Sequence[str], env: Mapping[str, str], status: int) -> Command:
            # The prologue's shell sees this environment, so nothing of ours may be steered by it.
            words = ["/usr/bin/env", "-i", *(f"{k}={v}" for k, v in {**base, **env}.items())]
            return Command(argv=[*words, *argv], cwd=folder)

        return LocalBox(folder, wrap, cgroup=cgroup, limits=self._limits)
