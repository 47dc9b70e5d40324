"""Tasks with what plays and judges them: environment, boxes and grader of one source."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from palestra.deploy.boxes import Boxes, pooled_boxes
from palestra.deploy.config import RunConfig
from palestra.deploy.console import Console
from palestra.envs import registry
from palestra.envs.base import Env
from palestra.envs.config import TasksConfig
from palestra.envs.gate import Gate
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


@asynccontextmanager
async def workshop(
    config: RunConfig, cache: Path, console: Console, *, unsafe_local: bool = False
) -> AsyncIterator[Workshop]:
    """Probe the sandbox, load and validate the tasks; what is left out is named and counted.

    Leaving it removes the boxes.
    """
    episodes = config.rollout.max_in_flight
    async with pooled_boxes(
        config.sandbox, episodes=episodes, run=config.name, unsafe_local=unsafe_local
    ) as boxes:
        guarantees = ", ".join(sorted(boxes.provider.guarantees))
        console.say(f"sandbox: {boxes.provider.name} ({guarantees})")
        yield await _furnished(config.tasks, config.sandbox, boxes, cache, console)


async def load_configured(settings: TasksConfig, boxes: Boxes, cache: Path) -> TaskSet:
    """The tasks of a run's source, before any is left out; ``cache`` keeps what was validated."""
    return await load(
        settings.source,
        run_checks=boxes.run_checks,
        provider=boxes.provider,
        seed=settings.seed,
        cache=cache,
        options=RepairOptions(
            mutations=settings.mutations,
            max_lines=settings.max_lines,
            show_failing_tests=settings.show_failing_tests,
        ),
    )


async def _furnished(
    settings: TasksConfig, sandbox: SandboxConfig, boxes: Boxes, cache: Path, console: Console
) -> Workshop:
    console.phase(f"loading tasks from {settings.source}")
    tasks = await load_configured(settings, boxes, cache)
    if settings.gate and not tasks.validated:
        tasks = await _fit(tasks, sandbox, boxes, cache, console)
    counts = ", ".join(f"{count} {name or 'tasks'}" for name, count in tasks.splits.items())
    console.say(f"tasks: {counts or 'none'}; left out: {len(tasks.skipped)}")
    for number, skipped in enumerate(tasks.skipped):
        tell = console.say if number < SHOWN else console.note
        tell(f"  left out {skipped.id}: {skipped.reason}")
    # Episodes share results of equal runs; checking tasks, which looks for flakiness, must not.
    run_checks = remembering_runner(boxes.run_checks, concurrency=sandbox.max_boxes)
    boxes = replace(boxes, run_checks=run_checks, grader=remembering_grader(boxes.grader))
    env = registry.make_player(
        settings.env, tasks.env, boxes.run_checks, system_prompt=settings.system_prompt
    )
    return Workshop(tasks=tasks, env=env, boxes=boxes)


async def _fit(
    tasks: TaskSet, sandbox: SandboxConfig, boxes: Boxes, cache: Path, console: Console
) -> TaskSet:
    """The tasks that may be trained on."""
    gate = Gate(
        grader=boxes.grader,
        cache=cache,
        settings=f"{boxes.provider.name} {sandbox.image} {sandbox.check_s:g}",
        concurrency=sandbox.max_boxes,
    )
    with console.progress(len(tasks.tasks), "tasks checked") as advance:
        return await gate.let(tasks, advance)
