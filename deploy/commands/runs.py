"""``palestra train``, ``sft``, ``eval`` and ``export``: from arguments to what does the work."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from palestra.deploy.config import RunConfig
from palestra.deploy.config_file import load_recipe
from palestra.deploy.loggers import check_names
from palestra.deploy.run_folder import AUTO, NEVER
from palestra.rl.errors import UserError


def train(args: Namespace) -> int:
    """Train as a recipe says, going on where an earlier run of the folder stopped."""
    config = _checked(args)
    folder = _folder(args, config)
    from palestra.deploy.run import train as start

    return start(config, folder, args.resume, args.unsafe_local)


def sft(args: Namespace) -> int:
    """Run only the supervised stage of a recipe."""
    config = _checked(args)
    folder = run_folder(args, config)
    from palestra.deploy.run import sft as start

    return start(config, folder, args.unsafe_local)


def evaluate(args: Namespace) -> int:
    """Measure pass@k of a checkpoint on a source of tasks."""
    checkpoint = _checkpoint(args)
    from palestra.deploy.evaluate import evaluate as start

    return start(checkpoint, args.tasks, args.samples, args.limit, args.json, args.set)


def export(args: Namespace) -> int:
    """Pack a checkpoint into four bits as the run that made it has used it."""
    checkpoint = _checkpoint(args)
    from palestra.deploy.evaluate import config_of

    qat = config_of(checkpoint, args.set).policy.learner.qat
    if not qat.enabled:
        raise UserError(
            f"{checkpoint}: was not trained for four bits; "
            "--set policy.learner.qat.enabled=true packs it all the same"
        )
    from palestra.policies.compressed import export as start

    start(checkpoint, Path(args.target), qat)
    return 0


def _checkpoint(args: Namespace) -> Path:
    checkpoint = Path(args.checkpoint)
    if not (checkpoint / "config.json").is_file():
        raise UserError(f"{checkpoint}: not a Hugging Face checkpoint: it has no config.json")
    return checkpoint


def run_folder(args: Namespace, config: RunConfig) -> Path:
    """``--run``, or the folder of this name below ``runs``."""
    if args.run:
        return Path(args.run)
    name = config.name
    if Path(name).name != name or name in ("", ".", ".."):
        raise UserError(f"name = {name!r}: not a folder name; choose one without slashes")
    return Path("runs") / name


def _checked(args: Namespace) -> RunConfig:
    """The recipe's configuration, whose loggers and rewards are there."""
    from palestra.rewards.assemble import check_functions

    config = load_recipe(args.recipe, args.set).config
    check_names(config.logger)
    check_functions(config.rewards)
    return config


def _folder(args: Namespace, config: RunConfig) -> Path:
    resumed = None if args.resume in (AUTO, NEVER) else Path(args.resume)
    if resumed and args.run and resumed.absolute() != Path(args.run).absolute():
        raise UserError(f"--resume {resumed} and --run {args.run} name two folders; give one")
    return resumed or run_folder(args, config)
