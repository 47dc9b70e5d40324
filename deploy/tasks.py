"""Tasks with what plays and judges them: environment, boxes and grader of one source."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from palestra.deploy.config import RunConfig
from palestra.deploy.console import Console
from palestra.envs import registry
from palestra.envs.base import Env
from palestra.envs.repair_source import RepairOptions
from palestra.envs.sources import load
from palestra.envs.taskset import TaskSet
from palestra.rl.errors import UserError
from palestra.rl.types import Grader, SandboxProvider
from palestra.sandbox.auto import choose
from palestra.sandbox.checks import make_grader, run_checks

SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """Everything but the policy."""

    tasks: TaskSet
    env: Env
    boxes: SandboxProvider
    grade: Grader


async def open_workshop(
    config: RunConfig, run: Path, console: Console, unsafe_local: bool
) -> Workshop:
    """Probe the sandbox, load and validate the tasks; what is left out is named and counted."""
    boxes = choose(frozenset(config.sandbox.require), unsafe_local=unsafe_local)
    console.say(f"sandbox: {boxes.name} ({', '.join(sorted(boxes.guarantees))})")
    console.phase(f"loading tasks from {config.tasks.source}")
    settings = config.tasks
    tasks = await load(
        settings.source,
        run_checks=run_checks,
        provider=boxes,
        seed=settings.seed,
        cache=run / "validation",
        options=RepairOptions(mutations=settings.mutations, max_lines=settings.max_lines),
    )
    counts = ", ".join(f"{count} {name}" for name, count in tasks.splits.items())
    console.say(f"tasks: {counts}; left out: {len(tasks.skipped)}")
    for skipped in tasks.skipped[:SHOWN]:
        console.say(f"  left out {skipped.id}: {skipped.reason}")
    if not tasks.split("train"):
        raise UserError(f"{settings.source}: no task of the split train is left to learn from")
    return Workshop(
        tasks=tasks,
        env=registry.make(tasks.env, run_checks, system_prompt=settings.system_prompt),
        boxes=boxes,
        grade=make_grader(boxes, concurrency=config.sandbox.max_boxes),
    )
