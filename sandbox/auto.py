"""Backends by name, and choosing the strongest that works rather than running unprotected."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palestra.rl.errors import SandboxError, UserError
from palestra.sandbox.base import Backend, Keeper
from palestra.sandbox.limits import Limits
from palestra.sandbox.warm import problem_of

GRADING: frozenset[str] = frozenset({"fs", "no_net", "kill_tree"})
"""Guarantees without which a verdict means nothing."""

BACKENDS: Mapping[str, str] = {
    "bubblewrap": "palestra.sandbox.bubblewrap:Bubblewrap",
    "landlock": "palestra.sandbox.landlock:Landlock",
    "docker": "palestra.sandbox.docker:Docker",
    "kubernetes": "palestra.sandbox.kubernetes:Kubernetes",
}
"""Where the class of each backend is; imported when it is used, as some need large libraries."""

KEEPERS: Mapping[str, str] = {
    "local": "palestra.sandbox.keeper:LocalKeeper",
    "docker": "palestra.sandbox.docker_keeper:DockerKeeper",
    "kubernetes": "palestra.sandbox.kubernetes_keeper:KubernetesKeeper",
}
"""What knows the boxes of a backend (``local``: of all local ones) without making any."""

LOCAL = ("bubblewrap", "landlock")
"""What ``auto`` tries, strongest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """What became of starting a backend here; ``problem`` is empty when it works. ``cold`` is why
    it cannot keep boxes warm for grading (``warm.py``), ``way`` how its boxes are reached, if that
    can differ.

    Example: ``Probed(name="docker", problem="DOCKER_HOST is not set")``
    """

    name: str
    guarantees: frozenset[str] = frozenset()
    cold: str = ""
    way: str = ""
    problem: str = ""


def make(name: str, **options: object) -> Backend:
    """The backend of that name, started with ``options``.

    Raises ``UserError`` for a name that nobody has and ``SandboxError`` where it does not work.
    """
    if name not in BACKENDS:
        raise UserError(f"no sandbox backend {name}; there are {', '.join(BACKENDS)}")
    backend: Backend = _class(BACKENDS[name])(**options)
    return backend


def keeper(name: str) -> Keeper:
    """What lists and removes the boxes of a backend, or of all ``local`` ones.

    Raises ``SandboxError`` where it cannot be reached.
    """
    found: Keeper = _class(KEEPERS["local" if name in LOCAL else name])()
    return found


def probe(name: str, **options: object) -> Probed:
    """Start a backend with ``options`` to find out what it guarantees here."""
    try:
        found = make(name, **options)
        return Probed(
            name=name,
            guarantees=found.guarantees,
            cold=problem_of(found),
            way=getattr(found, "way", ""),
        )
    except SandboxError as error:
        return Probed(name=name, problem=str(error))


def choose(
    require: frozenset[str] = GRADING,
    *,
    backend: str = "auto",
    unsafe_local: bool = False,
    root: Path | None = None,
    limits: Limits | None = None,
    containers: Mapping[str, object] | None = None,
) -> Backend:
    """The first local backend that works and gives every guarantee in ``require``.

    ``backend`` other than ``auto`` allows only that one; ``containers`` are options of those whose
    boxes are made from images. Raises ``UserError`` naming what is missing. ``unsafe_local`` gives
    plain processes instead.
    """
    if unsafe_local:
        from palestra.sandbox.unsafe import UnsafeLocal

        return UnsafeLocal(root=root, limits=limits)
    problems: list[str] = []
    for name in LOCAL if backend == "auto" else (backend,):
        own = {"root": root} if name in LOCAL else containers or {}
        given = {"limits": limits, **own}
        try:
            found = make(name, **{key: value for key, value in given.items() if value is not None})
        except SandboxError as error:
            problems.append(f"{name}: {error}")
            continue
        if require <= found.guarantees:
            return found
        problems.append(f"{name} lacks {', '.join(sorted(require - found.guarantees))}")
    wanted = ", ".join(sorted(require))
    if backend != "auto":
        raise UserError(f"no boxes that give {wanted}: {problems[0]}")
    raise UserError(
        f"no sandbox here gives {wanted} ({'; '.join(problems)}); install bubblewrap, or pass "
        "--unsafe-local to run agent code without isolation"
    )


def _class(place: str) -> Callable[..., Any]:
    module, _, name = place.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found
