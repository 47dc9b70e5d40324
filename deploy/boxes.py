"""What commands without a model need: boxes, checks run in them, and tasks."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from palestra.envs.sources import load
from palestra.envs.taskset import TaskSet
from palestra.rl.types import CheckRunner, Grader, SandboxProvider
from palestra.sandbox.auto import choose
from palestra.sandbox.checks import make_grader, run_checks
from palestra.sandbox.config import SandboxConfig
from palestra.sandbox.keeper import reap
from palestra.sandbox.warm import warm


@dataclass(frozen=True, kw_only=True)
class Boxes:
    """A provider of boxes and what runs checks in them.

    Example: ``boxes = open_boxes(unsafe_local=False)``
    """

    provider: SandboxProvider
    run_checks: CheckRunner
    grader: Grader


def open_boxes(config: SandboxConfig | None = None, *, unsafe_local: bool) -> Boxes:
    """The strongest boxes of this machine; raises ``UserError`` when they are too weak."""
    config = config or SandboxConfig()
    reap()  # what drivers that were killed left behind
    require = frozenset(config.require)
    containers = {"image": config.image, "pull": config.pull, "mirrors": config.mirrors}
    if config.backend in ("docker", "kubernetes"):
        containers |= getattr(config, config.backend).model_dump()
    provider = choose(
        require, backend=config.backend, unsafe_local=unsafe_local, containers=containers
    )
    kept = warm(provider, spare=config.max_boxes)
    return Boxes(
        provider=provider,
        run_checks=partial(kept.run_checks if kept else run_checks, check_s=config.check_s),
        grader=make_grader(kept or provider, concurrency=config.max_boxes, check_s=config.check_s),
    )


async def load_tasks(
    source: str, boxes: Boxes, *, seed: int = 0, limit: int | None = None
) -> TaskSet:
    """The tasks of a source; validation results are kept below the user's cache folder."""
    return await load(
        source,
        run_checks=boxes.run_checks,
        provider=boxes.provider,
        seed=seed,
        limit=limit,
        cache=cache_folder() / "validation",
    )


def cache_folder() -> Path:
    """Where results that can be computed again are kept: ``PALESTRA_CACHE``, or the user's own."""
    own = os.environ.get("PALESTRA_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "palestra"
