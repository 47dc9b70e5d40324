"""``palestra score RUN`` and ``palestra replay RUN GROUP --grade``: a run's rewards, anew."""

from __future__ import annotations

import asyncio
import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from palestra.deploy.boxes import cache_folder, open_boxes
from palestra.deploy.config import RunConfig
from palestra.deploy.config_file import load_recipe
from palestra.deploy.rescore import Rescored, can_be_scored, part_lines, rescored, summary
from palestra.deploy.run_folder import CONFIG
from palestra.deploy.run_view import RunView
from palestra.deploy.table import aligned
from palestra.deploy.tasks import load_configured
from palestra.deploy.text import one_line
from palestra.envs.registry import make_player
from palestra.rewards.assemble import assemble, close
from palestra.rl.errors import UserError
from palestra.rl.types import Reward, Trajectory


def score(args: Namespace) -> int:
    """All episodes of a run, or of one step; 1 when one could not be scored."""
    folder = Path(args.source)
    if not folder.is_dir():
        raise UserError(f"{args.source}: no run folder; solutions are given by --solutions")
    with RunView(folder) as run:
        played = sorted({row.step for row in run.journal.groups() if row.step > 0})
        steps = played if args.step is None else [run.shown_step(args.step) or 0]
        episodes = [t for step in steps for t in run.journal.trajectories(step)]
    return _again(args, folder, episodes, every=False)


def replay(args: Namespace) -> int:
    """The episodes of one group; 1 when one could not be scored."""
    with RunView(Path(args.run)) as run:
        episodes = run.journal.group(run.group(args.group, None).row.id)
    return _again(args, Path(args.run), episodes, every=True)


def _again(args: Namespace, run: Path, episodes: Sequence[Trajectory], *, every: bool) -> int:
    for override in args.set:
        if not override.startswith(("rewards.", "sandbox.")):
            raise UserError(f"--set {override}: only [rewards] and [sandbox] have an effect here")
    config = load_recipe(run / CONFIG, args.set).config
    graded = [episode for episode in episodes if can_be_scored(episode)]
    found = asyncio.run(_rescored(config, graded, unsafe_local=args.unsafe_local))
    for one in found:
        if args.json:
            print(json.dumps(one.to_json()))
        elif every or one.changed or one.failed:
            print(_line(one))
    if not args.json:
        print("\n".join(aligned([("part", "before", "now", "abstained"), *part_lines(found)])))
        print(summary(found))
    return 1 if any(one.failed for one in found) else 0


async def _rescored(
    config: RunConfig, episodes: Sequence[Trajectory], *, unsafe_local: bool
) -> list[Rescored]:
    boxes = open_boxes(config.sandbox, unsafe_local=unsafe_local)
    tasks = await load_configured(config.tasks, boxes, cache_folder() / "validation")
    env = make_player(config.tasks.env, tasks.env, boxes.run_checks)
    scheme = assemble(config.rewards, env.rewards, {"task_of": tasks.task_of})
    try:
        return await rescored(episodes, scheme)
    finally:
        await close(scheme)


def _line(one: Rescored) -> str:
    said = one_line(one.failed) or _parts(one.now)
    silent = "".join(f"; {name} abstained: {one_line(why)}" for name, why in one.abstained.items())
    return (
        f"{_total(one.recorded.reward):>7} -> {_total(one.now):>7}  {one_line(one.recorded.id)}  "
        f"{said}{silent}"
    )


def _total(reward: Reward | None) -> str:
    return f"{reward.total:.3f}" if reward else "-"


def _parts(reward: Reward | None) -> str:
    parts = reward.parts.items() if reward else ()
    return ", ".join(f"{one_line(name)} {value:.3g}" for name, value in parts)
