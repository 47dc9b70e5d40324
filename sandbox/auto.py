"""Choosing the strongest provider that works here, and refusing rather than running unprotected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from palestra.rl.errors import SandboxError, UserError
from palestra.rl.types import SandboxProvider
from palestra.sandbox.bubblewrap import Bubblewrap
from palestra.sandbox.landlock import Landlock
from palestra.sandbox.limits import Limits
from palestra.sandbox.unsafe import UnsafeLocal

GRADING: frozenset[str] = frozenset({"fs", "no_net", "kill_tree"})
"""Guarantees without which a verdict means nothing."""

_PROVIDERS: dict[str, Callable[..., SandboxProvider]] = {
    "bubblewrap": Bubblewrap,
    "landlock": Landlock,
}


def choose(
    require: frozenset[str] = GRADING,
    *,
    backend: str = "auto",
    unsafe_local: bool = False,
    root: Path | None = None,
    limits: Limits | None = None,
) -> SandboxProvider:
    """The first of bubblewrap and Landlock that works and gives every guarantee in ``require``.

    ``backend`` other than ``auto`` allows only that one. Raises ``UserError`` naming what is
    missing. ``unsafe_local`` gives plain processes instead.
    """
    if unsafe_local:
        return UnsafeLocal(root=root, limits=limits)
    problems: list[str] = []
    for name, make in _PROVIDERS.items():
        if backend not in ("auto", name):
            continue
        try:
            provider = make(root=root, limits=limits)
        except SandboxError as error:
            problems.append(f"{name}: {error}")
            continue
        if require <= provider.guarantees:
            return provider
        problems.append(f"{name} lacks {', '.join(sorted(require - provider.guarantees))}")
    wanted = ", ".join(sorted(require))
    raise UserError(
        f"no sandbox here gives {wanted} ({'; '.join(problems)}); install bubblewrap, or pass "
        "--unsafe-local to run agent code without isolation"
    )
