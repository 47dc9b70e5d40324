"""The outer loop: resume, evaluate, step, log, stop."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

from palestra.rl.config import RLConfig
from palestra.rl.errors import UserError
from palestra.rl.estimate import with_chosen_tasks
from palestra.rl.evaluate import Evaluation, evaluate
from palestra.rl.run import Run
from palestra.rl.step import rl_step
from palestra.rl.types import Task

OnStep = Callable[[int, Mapping[str, float]], None]


async def train(
    run: Run,
    heldout: Mapping[str, Sequence[Task]],
    on_step: OnStep,
    on_eval: Callable[[int, str, int], Callable[[], None]],
) -> None:
    """Train up to ``run.config.steps`` optimizer steps, going on from the last checkpoint.

    ``heldout`` maps split names to tasks; ``on_eval(step, split, episodes)`` returns a callback for
    each finished episode of that evaluation, and of what is played before step 1 to choose tasks.
    """
    start = await resume(run)
    await evaluate_splits(start, run, due(start, run.config, heldout), on_eval)
    if run.config.steps:
        run = await with_chosen_tasks(run, partial(on_eval, 0))
    for step in range(start + 1, run.config.steps + 1):
        ensure_space(run.checkpoints)
        on_step(step, await rl_step(step, run))
        prune(run.checkpoints, run.config.keep_checkpoints)
        await evaluate_splits(step, run, due(step, run.config, heldout), on_eval)


async def resume(run: Run) -> int:
    """Load the last complete checkpoint, give its weights to the engine; its step, or 0."""
    restore(run.checkpoints)
    last = last_checkpoint(run.checkpoints)
    step = step_of(last) if last else 0
    if last:
        await run.trainer.load(str(last))
    await run.trainer.publish(step)
    return step


def due(
    step: int, config: RLConfig, heldout: Mapping[str, Sequence[Task]]
) -> Mapping[str, Sequence[Task]]:
    """The splits to evaluate after ``step`` steps: all before and after the run, the first every
    ``eval.freq`` steps."""
    if step in (0, config.steps):
        return heldout
    freq = config.eval.freq
    return dict(islice(heldout.items(), 1)) if freq and step % freq == 0 else {}


async def evaluate_splits(
    step: int,
    run: Run,
    heldout: Mapping[str, Sequence[Task]],
    on_eval: Callable[[int, str, int], Callable[[], None]],
) -> None:
    """Evaluate the same tasks of each split at every step; a random choice of ``limit`` tasks.

    Only what the journal lacks is played, so an evaluation that was cut off is completed.
    """
    config = run.config.eval
    for split, tasks in heldout.items():
        rng = random.Random(f"{run.seed}/eval/{split}")
        chosen = rng.sample(list(tasks), min(config.limit, len(tasks)))
        evaluation = Evaluation(step=step, split=split, tasks=chosen, config=config, seed=run.seed)
        missing = len(evaluation.missing(run.journal))
        if missing:
            on_episode = on_eval(step, split, missing)
            await evaluate(evaluation, run.world, run.journal, on_episode)


def step_of(checkpoint: Path) -> int:
    """``checkpoints/step-12`` -> 12."""
    return int(checkpoint.name.removeprefix("step-"))


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first; half-written ones carry another name."""
    found = [p for p in folder.glob("step-*") if p.name.removeprefix("step-").isdigit()]
    return sorted(found, key=step_of)


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint, if any."""
    found = checkpoints(folder)
    return found[-1] if found else None


def restore(folder: Path) -> None:
    """Finish what a crash left of replacing a checkpoint: ``step-N.old`` is the previous one, and
    gets its name back when there is no new one."""
    for old in folder.glob("step-*.old"):
        checkpoint = old.with_suffix("")
        if checkpoint.exists():
            shutil.rmtree(old)
        else:
            old.rename(checkpoint)


def prune(folder: Path, keep: int) -> None:
    """Delete all but the newest ``keep`` checkpoints, and what a crash left half-written."""
    for stale in [*checkpoints(folder)[:-keep], *folder.glob("*.partial")]:
        shutil.rmtree(stale)


def ensure_space(folder: Path) -> None:
    """Raise before a step when the next checkpoint would not fit; the last one is untouched."""
    last = last_checkpoint(folder)
    if last is None:
        return
    need = sum(path.stat().st_size for path in last.rglob("*") if path.is_file())
    free = shutil.disk_usage(folder).free
    if free < 2 * need:
        raise UserError(
            f"{folder}: {free >> 20} MiB free, the next checkpoint needs {2 * need >> 20} MiB; "
            f"make room and run the same command again (good up to {last.name})"
        )
