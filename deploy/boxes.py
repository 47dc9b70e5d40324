"""What commands without a model need: boxes, checks run in them, and tasks."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from palestra.envs.sources import load
from palestra.envs.taskset import TaskSet
from palestra.rewards.answers.grade import AnswerGrader
from palestra.rewards.provenance import vouching
from palestra.rl.types import CheckRunner, Grader, SandboxProvider
from palestra.sandbox.auto import choose
from palestra.sandbox.base import Backend
from palestra.sandbox.checks import make_grader, run_checks
from palestra.sandbox.config import SandboxConfig
from palestra.sandbox.keeper import reap
from palestra.sandbox.pool import Pool
from palestra.sandbox.verifier import verifying
from palestra.sandbox.warm import warm


@dataclass(frozen=True, kw_only=True)
class Boxes:
    """A provider of boxes and what runs checks in them; ``metrics`` are those of its pool.

    Example: ``boxes = open_boxes(unsafe_local=False)``
    """

    provider: SandboxProvider
    run_checks: CheckRunner
    grader: Grader
    metrics: Callable[[], Mapping[str, float]] = dict


def open_boxes(config: SandboxConfig | None = None, *, unsafe_local: bool) -> Boxes:
    """The strongest boxes of this machine; raises ``UserError`` when they are too weak."""
    config = config or SandboxConfig()
    backend = _backend(config, unsafe_local=unsafe_local)
    return _boxes(config, backend, backend)


@asynccontextmanager
async def pooled_boxes(
    config: SandboxConfig, *, episodes: int, run: str, unsafe_local: bool
) -> AsyncIterator[Boxes]:
    """The same from a pool, for ``episodes`` at once; the boxes have the label ``run``.

    Leaving it removes them all; see ``Pool`` for what it raises then.
    """
    backend = _backend(config, unsafe_local=unsafe_local)
    settings = config.pool
    if "image" not in backend.guarantees:  # a folder is made as fast as it is taken from a shelf
        settings = settings.model_copy(update={"spare": 0})
    places = settings.places or episodes + config.max_boxes + settings.spare
    async with Pool(backend, settings, places=places, labels={"run": run}) as pool:
        yield replace(_boxes(config, backend, pool), metrics=pool.metrics)


def _backend(config: SandboxConfig, *, unsafe_local: bool) -> Backend:
    reap()  # what drivers that were killed left behind
    containers = {"image": config.image, "pull": config.pull, "mirrors": config.mirrors}
    if config.backend in ("docker", "kubernetes"):
        containers |= getattr(config, config.backend).model_dump()
    return choose(
        frozenset(config.require),
        backend=config.backend,
        unsafe_local=unsafe_local,
        containers=containers,
    )


def _boxes(config: SandboxConfig, backend: Backend, provider: SandboxProvider) -> Boxes:
    kept = warm(backend, spare=config.max_boxes)
    grader = make_grader(kept or provider, concurrency=config.max_boxes, check_s=config.check_s)
    return Boxes(
        provider=provider,
        run_checks=partial(kept.run_checks if kept else run_checks, check_s=config.check_s),
        grader=vouching(AnswerGrader(verifying(grader, provider))),
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
