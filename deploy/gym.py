"""Our environments under their own names in Gymnasium.

Importing this module registers them, and so does Gymnasium when it is asked for one with the module
in front of the name::

    env = gymnasium.make("palestra.deploy.gym:palestra/Repair-v0", limit=20)

Registration reads names only; tasks are loaded and a sandbox is probed when one is made.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import gymnasium

from palestra.envs import registry
from palestra.rl.errors import UserError

if TYPE_CHECKING:
    from palestra.envs.gym import TaskEnv


def register() -> None:
    """Register every environment of ours and of plugins, once; names already taken are left."""
    known = registry.ENVIRONMENTS
    for name in (*known.ours, *known.plugins()):
        if name in gymnasium.registry:
            continue
        try:
            gymnasium.register(
                id=name, entry_point="palestra.deploy.gym:make_task_env", kwargs={"name": name}
            )
        except gymnasium.error.Error as error:
            gymnasium.logger.warn(f"environment {name!r} is not registered: {error}")


def make_task_env(
    name: str,
    source: str | None = None,
    split: str | None = None,
    seed: int = 0,
    limit: int | None = None,
) -> TaskEnv:
    """The environment ``name`` on the tasks of ``source``, in the strongest boxes of this machine.

    ``source`` is what the command line calls SOURCE (default: the environment's own tasks);
    ``split`` keeps one of its splits, ``limit`` so many tasks; ``seed`` decides the splits. Raises
    ``UserError`` for a source of another environment and where no box isolates well enough.
    """
    from palestra.deploy.boxes import cache_folder, open_boxes
    from palestra.envs.gym import TaskEnv
    from palestra.envs.sources import load

    boxes = open_boxes(unsafe_local=False)
    loading = load(
        source or name,
        run_checks=boxes.run_checks,
        provider=boxes.provider,
        seed=seed,
        split=split,
        limit=limit,
        cache=cache_folder() / "validation",
    )
    with ThreadPoolExecutor(1) as thread:  # the caller may be inside a running loop (a notebook)
        tasks = thread.submit(asyncio.run, loading).result()
    env = registry.make_player(name, tasks.env, boxes.run_checks)
    if not tasks.tasks:
        raise UserError(f"{name}: {tasks.source} has no tasks (split {split}); choose another")
    return TaskEnv(env, tasks.tasks, provider=boxes.provider, grader=boxes.grader)


register()
