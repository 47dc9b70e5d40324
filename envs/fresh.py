"""Does a task always start from the same files?"""

from __future__ import annotations

from dataclasses import dataclass

from palestra.envs.base import Env
from palestra.rl.types import File, SandboxProvider, Task


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Where tasks are set up: by ``env``, in boxes of ``provider``.

    Example: ``Stage(env=env, provider=Bubblewrap())``
    """

    env: Env
    provider: SandboxProvider


async def starts_differ(task: Task, stage: Stage) -> str:
    """The first path that is not the same in two boxes set up one after the other; empty if none.

    Raises ``SandboxError`` when a box fails, and what ``Env.setup`` says of a task at fault.
    """
    first, second = await _started(task, stage), await _started(task, stage)
    return min(
        (p for p in first.keys() | second.keys() if first.get(p) != second.get(p)), default=""
    )


async def _started(task: Task, stage: Stage) -> dict[str, File]:
    async with stage.provider.open(task.image) as box:
        await stage.env.setup(task, box)
        return await box.tree()
