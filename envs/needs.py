"""What a task needs to find in its boxes: interpreters and installed packages.

``labels["needs"]`` of a task names them: ``node``, or ``python:numpy`` for a module.
"""

from __future__ import annotations

from collections.abc import Mapping

from palestra.rl.errors import SandboxError
from palestra.rl.types import SandboxProvider, Task

_PROGRAM = ("sh", "-c", 'command -v -- "$1"', "sh")
_MODULES: Mapping[str, tuple[str, ...]] = {
    "python": (
        "python3",
        "-s",
        "-c",
        "import importlib.util as u, sys; sys.exit(u.find_spec(sys.argv[1]) is None)",
    ),
}


class Needs:
    """Finds out, once for each, what boxes of ``provider`` lack.

    Example: ``await Needs(provider).lacking(task) == "the box has no python:numpy"``
    """

    def __init__(self, provider: SandboxProvider) -> None:
        self._provider = provider
        self._known: dict[str, bool] = {}

    async def lacking(self, task: Task) -> str:
        """Why a task cannot be run; empty if nothing is missing. Raises ``SandboxError``."""
        missing = [
            need for need in task.labels.get("needs", "").split() if not await self._has(need)
        ]
        return f"the box has no {', '.join(missing)}" if missing else ""

    async def _has(self, need: str) -> bool:
        if need not in self._known:
            kind, _, name = need.rpartition(":")
            words = [*(_MODULES[kind] if kind else _PROGRAM), name]
            async with self._provider.open() as box:
                ended = await box.exec(words)
            if ended.timed_out:
                raise SandboxError(f"the box did not say in time whether it has {need}")
            self._known[need] = ended.exit_code == 0
        return self._known[need]
