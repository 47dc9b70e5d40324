"""Tasks with what plays and judges them: environment, boxes and grader of one source."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from palestra.deploy.boxes import Boxes, open_boxes
from palestra.deploy.console import Console
from palestra.envs import registry
from palestra.envs.base import Env
from palestra.envs.config import TasksConfig
from palestra.envs.repair_source import RepairOptions
from palestra.envs.sources import load
from palestra.envs.taskset import TaskSet
from palestra.sandbox.config import SandboxConfig
from palestra.sandbox.memo import remembering_grader, remembering_runner

SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """Everything that an episode needs but the policy."""

    tasks: TaskSet
    env: Env
    boxes: Boxes


async def open_workshop(
    settings: TasksConfig,
    sandbox: SandboxConfig,
    cache: Path,
    console: Console,
    *,
    unsafe_local: bool = False,
    split: str | None = None,
) -> Workshop:
    """Probe the sandbox, load and validate the tasks; what is left out is named and counted."""
    boxes = open_boxes(sandbox, unsafe_local=unsafe_local)
    console.say(f"sandbox: {boxes.provider.name} ({', '.join(sorted(boxes.provider.guarantees))})")
    console.phase(f"loading tasks from {settings.source}")
    tasks = await load(
        settings.source,
        run_checks=boxes.run_checks,
        provider=boxes.provider,
        seed=settings.seed,
        split=split,
        cache=cache,
        options=RepairOptions(mutations=settings.mutations, max_lines=settings.max_lines),
    )
    counts = ", ".join(f"{count} {name or 'tasks'}" for name, count in tasks.splits.items())
    console.say(f"tasks: {counts or 'none'}; left out: {len(tasks.skipped)}")
    for skipped in tasks.skipped[:SHOWN]:
        console.say(f"  left out {skipped.id}: {skipped.reason}")
    # Episodes share results of equal runs; checking tasks, which looks for flakiness, must not.
    run_checks = remembering_runner(boxes.run_checks, concurrency=sandbox.max_boxes)
    boxes = replace(boxes, run_checks=run_checks, grader=remembering_grader(boxes.grader))
    env = registry.make(tasks.env, boxes.run_checks, system_prompt=settings.system_prompt)
    return Workshop(tasks=tasks, env=env, boxes=boxes)
