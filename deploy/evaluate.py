"""``palestra eval``: pass@k of any checkpoint on any source of tasks, without Ray or a learner."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from palestra.deploy.boxes import cache_folder
from palestra.deploy.config import RunConfig
from palestra.deploy.config_file import load_recipe
from palestra.deploy.console import Console
from palestra.deploy.tasks import Workshop, workshop
from palestra.deploy.world import make_world
from palestra.rewards.assemble import close
from palestra.rl.config import EvalConfig
from palestra.rl.evaluate import Evaluation
from palestra.rl.evaluate import evaluate as play_evaluation
from palestra.rl.journal import EvalRow, Journal
from palestra.rl.metrics import pass_at_k, wilson
from palestra.rl.types import Json, Task
from palestra.rollout.episode import World


def evaluate(
    checkpoint: Path,
    source: str,
    samples: int,
    limit: int | None,
    as_json: bool,
    overrides: Sequence[str] = (),
) -> int:
    """Print pass@1 (and pass@n) per split; exit code 1 when episodes were lost to faults of ours.

    Settings of the dialect, the prompt and the limits come from the run that made the checkpoint,
    or are the defaults for any other folder; ``overrides`` (``key=value``) are put on top.
    """
    config = config_of(checkpoint, overrides)
    with (
        Console(stream=sys.stderr if as_json else None) as console,
        tempfile.TemporaryDirectory() as scratch,
    ):
        result, lost = asyncio.run(
            _evaluate(checkpoint, config, source, samples, limit, console, Path(scratch))
        )
        if as_json:
            print(json.dumps(result))
        else:
            for split, score in result.items():
                console.say(f"{split}: {json.dumps(score)}")
        if lost:
            console.say(f"{lost} episodes were lost to infrastructure failures and left out")
    return 1 if lost else 0


def config_of(checkpoint: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration of the run that a checkpoint lies in, or the defaults."""
    for folder in checkpoint.resolve().parents[:2]:
        if (folder / "journal.sqlite").is_file() and (folder / "config.toml").is_file():
            return load_recipe(folder / "config.toml", overrides).config
    return load_recipe(None, overrides).config


async def _evaluate(
    checkpoint: Path,
    config: RunConfig,
    source: str,
    samples: int,
    limit: int | None,
    console: Console,
    scratch: Path,
) -> tuple[dict[str, Json], int]:
    from palestra.policies.compressed import played_folder
    from palestra.policies.engine import VllmEngine

    tasks = config.tasks.model_copy(update={"source": source, "gate": False})
    config = config.model_copy(update={"tasks": tasks})
    async with workshop(config, cache_folder() / "validation", console) as shop:
        console.phase(f"starting the engine on {checkpoint}")
        played = played_folder(checkpoint, scratch / "played", config.policy.learner.qat)
        length = config.rollout.max_context_length
        engine = VllmEngine(str(played), config.policy.engine, max_model_len=length)
        try:
            with Journal(scratch / "journal.sqlite") as journal:
                world = make_world(config, shop, checkpoint, engine, journal, lambda: 0)
                try:
                    return await _play_splits(config, shop, world, samples, limit, console)
                finally:
                    await close(world.scheme)
        finally:
            await engine.close()


async def _play_splits(
    config: RunConfig,
    shop: Workshop,
    world: World,
    samples: int,
    limit: int | None,
    console: Console,
) -> tuple[dict[str, Json], int]:
    """Scores by split, and how many episodes were lost."""
    settings = config.rl.eval.model_copy(update={"samples": samples, "limit": limit or 10**9})
    result: dict[str, Json] = {}
    lost = 0
    for split, chosen in _splits(shop).items():
        part = chosen[:limit]
        rows = await _play(split, part, settings, world, console, config.seed)
        result[split] = _score(rows, samples)
        lost += len(part) * samples - len(rows)
    return result, lost


def _splits(shop: Workshop) -> Mapping[str, Sequence[Task]]:
    """The held-out splits, or everything where a source has no splits."""
    named = {name: shop.tasks.split(name) for name in shop.tasks.splits if name}
    heldout = {name: tasks for name, tasks in named.items() if name != "train"}
    return heldout or named or {"all": shop.tasks.tasks}


async def _play(
    split: str,
    tasks: Sequence[Task],
    config: EvalConfig,
    world: World,
    console: Console,
    seed: int,
) -> list[EvalRow]:
    evaluation = Evaluation(step=0, split=split, tasks=tasks, config=config, seed=seed)
    with (
        tempfile.TemporaryDirectory() as folder,
        Journal(Path(folder) / "journal.sqlite") as journal,
        console.progress(len(tasks) * config.samples, split) as advance,
    ):
        await play_evaluation(evaluation, world, journal, advance)
        return journal.evals()


def _score(rows: Sequence[EvalRow], samples: int) -> dict[str, Json]:
    solved: dict[str, list[bool]] = {}
    for row in rows:
        solved.setdefault(row.task_id, []).append(row.solved)
    whole = [marks for marks in solved.values() if len(marks) == samples]
    score: dict[str, Json] = {"n": len(solved), "samples": samples}
    for k in sorted({1, samples}):
        chances = [pass_at_k(len(m), sum(m), k) for m in (solved.values() if k == 1 else whole)]
        if chances:
            score[f"pass@{k}"] = sum(chances) / len(chances)
            score[f"pass@{k} ci95"] = list(wilson(sum(chances), len(chances)))
    return score
