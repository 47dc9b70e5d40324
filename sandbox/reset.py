"""Used boxes made as new, where that can be done from outside and be seen."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from palestra.rl.errors import UserError
from palestra.sandbox.base import Backend, Box


@runtime_checkable
class Resets(Protocol):
    """A backend that can make a used box as new, without running anything inside."""

    def cannot_reset(self) -> str:
        """Why it cannot on this machine; empty if it can."""
        ...

    async def reset(self, box: Box) -> None:
        """End and delete all that a box was used for; raises ``SandboxError``."""
        ...

    async def fingerprint(self, box: Box) -> str:
        """All of a box that can be seen from outside and is not its name or its age: the same for
        every fresh box of one ``BoxSpec``. Raises ``SandboxError``."""
        ...


def resetting(backend: Backend) -> Resets:
    """``backend``; raises ``UserError`` where its used boxes cannot be shown to be as new."""
    if not isinstance(backend, Resets):
        problem = "what a used box went through cannot be seen from outside"
    elif not (problem := backend.cannot_reset()):
        return backend
    text = f"sandbox.pool.reuse: {backend.name} boxes cannot be used again"
    raise UserError(f"{text} ({problem}); set it to false")
