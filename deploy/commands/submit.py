"""``palestra submit``: a recipe as a job on a Ray cluster; its status, its log, its end."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from palestra.deploy.commands.runs import run_folder
from palestra.deploy.config_file import load_recipe
from palestra.rl.errors import UserError

if TYPE_CHECKING:
    from palestra.deploy.jobs import Jobs


def run(args: Namespace) -> int:
    """Submit a recipe and follow its log, or ask about a job; 1 when the job did not end well."""
    address = args.address or os.environ.get("RAY_API_SERVER_ADDRESS")
    if not address:
        raise UserError("give --address http://HOST:8265, or set RAY_API_SERVER_ADDRESS")
    asked = [name for name in ("status", "logs", "stop") if getattr(args, name)]
    if len(asked) + bool(args.recipe) != 1:
        raise UserError("give a recipe, or one of --status, --logs and --stop with the id of a job")
    if not asked:
        return _submit(args, address)
    jobs, job = _jobs(address), getattr(args, asked[0])
    if asked == ["status"]:
        return _status(jobs, job, as_json=args.json)
    if asked == ["stop"]:
        print(f"{job}: stopping" if jobs.stop(job) else f"{job}: has ended already")
        return 0
    print(jobs.logs(job), end="")
    return 0


def command_of(args: Namespace) -> str:
    """What the cluster runs; the run folder is absolute, for a job's own folder does not last."""
    config = load_recipe(args.recipe, args.set).config
    recipe = Path(args.recipe).resolve()
    if not recipe.is_relative_to(Path.cwd()):
        raise UserError(
            f"{args.recipe}: not below the folder that is sent; go to its project first"
        )
    folder = str(run_folder(args, config).absolute())
    words = ["palestra", "train", str(recipe.relative_to(Path.cwd())), "--run", folder]
    words += [word for each in args.set for word in ("--set", each)]
    return shlex.join([*words, *(["--unsafe-local"] if args.unsafe_local else [])])


def _jobs(address: str) -> Jobs:
    from palestra.deploy.jobs import Jobs  # imports Ray

    return Jobs(address)


def _submit(args: Namespace, address: str) -> int:
    command = command_of(args)
    jobs = _jobs(address)
    job = jobs.submit(command, str(Path.cwd()))
    print(f"job {job}: {command}", flush=True)
    if args.no_wait:
        return 0
    try:
        asyncio.run(_follow(jobs, job))
    except KeyboardInterrupt:
        print(f"the job goes on; to end it: palestra submit --stop {job} --address {address}")
        return 130
    return _status(jobs, job, as_json=False)


async def _follow(jobs: Jobs, job: str) -> None:
    async for lines in jobs.follow(job):
        print(lines, end="", flush=True)


def _status(jobs: Jobs, job: str, *, as_json: bool) -> int:
    status, message = jobs.status(job)
    said = " ".join(message.split())
    row = {"job": job, "status": status, "message": said}
    print(json.dumps(row) if as_json else f"{job}: {status.lower()}: {said}".rstrip(": "))
    return 1 if status in ("FAILED", "STOPPED") else 0
