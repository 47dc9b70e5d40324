"""The command ``palestra``: arguments and exit codes; every command lives in a module of its own.

Nothing heavy is imported before a command needs it. Exit codes: 0 done, 1 found problems, 2 wrong
use, 130 interrupted. Errors are one line on stderr that says what to change.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import math
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from palestra import __version__
from palestra.rl.errors import PalestraError, UserError

LATER = {
    "gateway": "an OpenAI-compatible endpoint that records tokens",
}
"""Commands of the contract that are not in this version."""

SOURCE = (
    "format:path (repair:, repair:DIR, repair-repo:DIR, mbpp:FILE, humaneval:FILE, swebench:FILE,"
    " harbor:DIR, jsonl:FILE) or an environment"
)


class Parser(argparse.ArgumentParser):
    """Reports wrong use as one line, without the usage text."""

    def error(self, message: str) -> NoReturn:
        """Raise ``UserError`` instead of printing."""
        raise UserError(f"{message}; see {self.prog} --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        _check_command(arguments)
        args = build_parser().parse_args(arguments)
        code = _load(args.function)(args)
        sys.stdout.flush()
    except UserError as error:
        return _fail(error, 2)
    except PalestraError as error:
        return _fail(error, 1)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:
        # The reader has gone (palestra ... | head); keep the interpreter from flushing into it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def build_parser() -> Parser:
    """Every command with its arguments."""
    parser = Parser(prog="palestra", description="Reinforcement learning for coding agents.")
    parser.add_argument("--version", action="version", version=f"palestra {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_runs(commands)
    _add_export(commands)
    _add_plan(commands)
    _add_tasks(commands)
    _add_new(commands)
    _add_looking(commands)
    _add_sandbox(commands)
    _add_dashboard(commands)
    for name, what in LATER.items():
        _command(commands, name, f"{what} (not in this version)", "")
    return parser


Commands = argparse._SubParsersAction  # argparse has no public name for it


def _command(commands: Commands[Parser], name: str, what: str, function: str) -> Parser:
    parser = commands.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".")
    parser.set_defaults(function=function)
    return parser


def _add_runs(commands: Commands[Parser]) -> None:
    train = _command(commands, "train", "train a policy as a recipe says", "runs:train")
    _recipe(train)
    _folder(train)
    what = "auto: go on if the folder holds a run; never; or the folder to go on in"
    train.add_argument("--resume", default="auto", metavar="auto|never|DIR", help=what)
    _add_submit(commands)
    sft = _command(commands, "sft", "run only the supervised stage of a recipe", "runs:sft")
    _recipe(sft)
    _folder(sft)
    evaluate = _command(commands, "eval", "measure pass@k of a checkpoint", "runs:evaluate")
    evaluate.add_argument("checkpoint", metavar="CHECKPOINT", help="a Hugging Face folder")
    evaluate.add_argument("--tasks", required=True, metavar="SOURCE", help=SOURCE)
    what = "episodes per task (default 1)"
    evaluate.add_argument("-n", dest="samples", type=_positive, default=1, metavar="N", help=what)
    _limit(evaluate)
    _set(evaluate, "replace a value of the checkpoint's run (repeatable)")
    _json(evaluate)


def _add_submit(commands: Commands[Parser]) -> None:
    submit = _command(commands, "submit", "a recipe as a job on a Ray cluster", "submit:run")
    submit.add_argument("recipe", nargs="?", metavar="RECIPE", help="below the current folder")
    what = "Ray's dashboard, http://HOST:8265 (default RAY_API_SERVER_ADDRESS)"
    submit.add_argument("--address", metavar="URL", help=what)
    _set(submit, "replace a value, e.g. --set rl.steps=20 (repeatable)")
    what = "run folder, as the cluster sees it (default: runs/NAME of the current folder)"
    submit.add_argument("--run", metavar="DIR", help=what)
    _unsafe(submit)
    submit.add_argument("--no-wait", action="store_true", help="do not follow the log")
    for name, what in (
        ("status", "how a job is doing; 1 when it failed or was stopped"),
        ("logs", "what a job has printed"),
        ("stop", "ask a job to stop"),
    ):
        submit.add_argument(f"--{name}", metavar="JOB", help=what)
    _json(submit)


def _add_export(commands: Commands[Parser]) -> None:
    what = "pack a checkpoint's weights into four bits, as compressed-tensors does"
    export = _command(commands, "export", what, "runs:export")
    export.add_argument("checkpoint", metavar="CHECKPOINT", help="a Hugging Face folder")
    export.add_argument("target", metavar="DIR", help="the folder to write")
    _set(export, "replace a value of the checkpoint's run (repeatable)")


def _add_plan(commands: Commands[Parser]) -> None:
    plan = _command(commands, "plan", "batches, memory and warnings before a run", "plan:plan")
    _overridable(plan)
    plan.add_argument("--model-config", metavar="FILE", help="config.json of the model to plan for")
    plan.add_argument("--gpu", default="h100", metavar="NAME", help="kind of GPU (default: h100)")
    plan.add_argument(
        "--engine-gpus", type=_positive, default=1, metavar="N", help="GPUs per engine, on paper"
    )
    plan.add_argument(
        "--expert-bits", type=int, default=16, choices=(4, 8, 16), help="of the engine, on paper"
    )
    _json(plan)


def _add_tasks(commands: Commands[Parser]) -> None:
    tasks = _command(commands, "tasks", "check, show or export the tasks of a source", "")
    actions = tasks.add_subparsers(dest="action", metavar="check|show|export", required=True)
    what = "reference solutions score 1, doing nothing scores 0, repeats agree"
    check = _command(actions, "check", what, "tasks:check")
    show = _command(actions, "show", "the tasks of a source, or one of them", "tasks:show")
    export = _command(actions, "export", "write tasks in another format", "tasks:export")
    what = "grade given solutions, or a run's episodes by other rewards, without a model"
    score = _command(commands, "score", what, "tasks:score")
    for parser in (check, show, export, score):
        parser.add_argument("source", metavar="SOURCE", help=SOURCE)
        _set(parser, "a value of [sandbox]; for the episodes of a run, of [rewards] (repeatable)")
        _unsafe(parser)
    for parser in (check, show, score):
        _json(parser)
    for parser in (check, show, export):
        _limit(parser)
    what = "also try the attacks of docs/sandboxes.md on every task; 1 when one gains anything"
    check.add_argument("--red-team", action="store_true", help=what)
    what = "gradings of each reference, which must agree (default 3)"
    check.add_argument("--repeats", type=_positive, default=3, metavar="N", help=what)
    check.add_argument("--html", metavar="FILE", help="also write the report as an HTML file")
    what = "harbor: task directories of Harbor"
    export.add_argument("--format", choices=["harbor"], required=True, help=what)
    export.add_argument("--out", metavar="DIR", required=True, help="a new folder to write to")
    show.add_argument("id", nargs="?", metavar="ID", help="a task's id, or how it begins")
    what = "rows of {task_id, completion} or {task_id, files}; without, SOURCE is a run folder"
    score.add_argument("--solutions", metavar="FILE.jsonl", help=what)
    score.add_argument("--step", type=int, metavar="N", help="of a run: this step alone")


def _add_new(commands: Commands[Parser]) -> None:
    new = _command(commands, "new", "a package of your own to start from, with its tests", "")
    actions = new.add_subparsers(dest="action", metavar="env|reward", required=True)
    for kind, what, example in (
        ("env", "a package with an environment", "acme/Times-v0"),
        ("reward", "a package with a reward", "few_turns"),
    ):
        parser = _command(actions, kind, what, f"new:{kind}")
        parser.add_argument("name", metavar="NAME", help=f"such as {example}")
        parser.add_argument(
            "--dir", metavar="DIR", help="the folder to make (default palestra-NAME)"
        )


def _add_looking(commands: Commands[Parser]) -> None:
    show = _command(commands, "show", "look at a run and its episodes", "show:run")
    show.add_argument("run", metavar="RUN", help="a run folder, such as runs/tiny")
    show.add_argument("--step", type=int, metavar="N", help="this step instead of the last")
    show.add_argument("--group", metavar="G", help="episodes of this group (how its id begins)")
    show.add_argument("--html", metavar="FILE", help="write an HTML file instead")
    show.add_argument("--tokens", action="store_true", help="tokens with log-probabilities")
    _json(show)
    what = "a recorded group again, by the rewards of its run or by others"
    replay = _command(commands, "replay", what, "rescore:replay")
    replay.add_argument("run", metavar="RUN", help="a run folder, such as runs/tiny")
    replay.add_argument("group", metavar="GROUP", help="how the group's id begins")
    what = "compute the rewards again, and show them beside the recorded ones"
    replay.add_argument("--grade", action="store_true", required=True, help=what)
    _set(replay, "a value of [rewards] (repeatable)")
    _unsafe(replay)
    _json(replay)
    config = _command(commands, "config", "print a resolved recipe with sources", "config:run")
    _overridable(config)
    config.add_argument("--toml", action="store_true", help="print as a recipe")
    _json(config)
    for name, what, function in (
        ("doctor", "what works on this machine", "doctor:run"),
        ("envs", "environments, plugins included", "registries:envs"),
    ):
        _json(_command(commands, name, what, function))
    what = "rewards, plugins included"
    rewards = _command(commands, "rewards", what, "registries:rewards")
    what = "a recipe, whose own functions are listed, too"
    rewards.add_argument("recipe", nargs="?", metavar="RECIPE", help=what)
    _json(rewards)


def _add_sandbox(commands: Commands[Parser]) -> None:
    sandbox = _command(
        commands, "sandbox", "what sandboxes guarantee and cost; remove forgotten ones", ""
    )
    actions = sandbox.add_subparsers(dest="action", metavar="doctor|bench|reap", required=True)
    what = "guarantees of each backend, found by trying"
    doctor = _command(actions, "doctor", what, "sandbox:doctor")
    what = "how long boxes take to start and to run a command"
    bench = _command(actions, "bench", what, "sandbox:bench")
    what = "remove boxes whose driver is dead or whose time is over"
    reap = _command(actions, "reap", what, "sandbox:reap")
    for parser in (doctor, bench, reap):
        parser.add_argument("--backend", metavar="B", help="this backend only")
        _json(parser)
    for parser in (doctor, bench):
        parser.add_argument("--image", metavar="IMAGE", help="image of boxes that are containers")
    what = "boxes of each backend, one after the other (default: 20)"
    bench.add_argument("--cycles", type=_positive, default=20, metavar="N", help=what)
    what = "only boxes with this label, such as run=tiny-0 (repeatable)"
    reap.add_argument("--label", action="append", default=[], metavar="NAME=VALUE", help=what)
    what = "also those of living drivers that are older (0: all)"
    reap.add_argument("--older", type=_seconds, default=math.inf, metavar="SECONDS", help=what)


def _add_dashboard(commands: Commands[Parser]) -> None:
    dashboard = _command(commands, "dashboard", "runs in a browser", "dashboard:run")
    what = "a folder of runs, or one run (default runs)"
    dashboard.add_argument("runs", nargs="?", default="runs", metavar="RUNS", help=what)
    what = "address to listen on (default 127.0.0.1); others need a token and TLS"
    dashboard.add_argument("--host", default="127.0.0.1", help=what)
    what = "port to listen on (default 8765; 0: any that is free)"
    dashboard.add_argument("--port", type=_port, default=8765, metavar="N", help=what)
    for name, what in (
        ("token-file", "file with the token; else the variable PALESTRA_DASHBOARD_TOKEN"),
        ("tls-cert", "certificate to speak TLS with"),
        ("tls-key", "its key"),
        ("cache", "folder of search indexes (default ~/.cache/palestra/dashboard)"),
    ):
        dashboard.add_argument(f"--{name}", metavar="PATH", help=what)
    what = "a proxy in front speaks TLS"
    dashboard.add_argument("--behind-proxy", action="store_true", help=what)


def _recipe(parser: Parser) -> None:
    _overridable(parser)
    _unsafe(parser)


def _overridable(parser: Parser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help="a TOML file, such as recipes/tiny.toml")
    _set(parser, "replace a value, e.g. --set rl.steps=20 (repeatable)")


def _set(parser: Parser, what: str) -> None:
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=what)


def _folder(parser: Parser) -> None:
    parser.add_argument("--run", metavar="DIR", help="run folder (default runs/NAME)")


def _unsafe(parser: Parser) -> None:
    what = "allow running code of agents without isolation"
    parser.add_argument("--unsafe-local", action="store_true", help=what)


def _limit(parser: Parser) -> None:
    parser.add_argument("--limit", type=_positive, metavar="N", help="at most so many tasks")


def _json(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON for scripts")


def _positive(text: str) -> int:
    value = int(text) if text.isascii() and text.isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return value


def _port(text: str) -> int:
    value = int(text) if text.isascii() and text.isdigit() else -1
    if not 0 <= value < 65_536:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port")
    return value


def _seconds(text: str) -> float:
    value = float(text) if text.isascii() and text.replace(".", "", 1).isdigit() else -1.0
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return value


def _check_command(arguments: Sequence[str]) -> None:
    """Answer unknown commands and those of later versions before argparse does."""
    name = arguments[0] if arguments else "--help"
    if name.startswith("-"):
        if not arguments:
            raise UserError("give a command; see palestra --help")
        return
    known = [*COMMANDS, *LATER]
    if name in LATER and not {"-h", "--help"} & set(arguments):
        raise UserError(f"{name}: not in this version")
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else "see palestra --help"
        raise UserError(f"no command {name}; {hint}")


def _load(function: str) -> Callable[[argparse.Namespace], int]:
    module, _, name = function.partition(":")
    loaded: Callable[[argparse.Namespace], int] = getattr(
        importlib.import_module(f"palestra.deploy.commands.{module}"), name
    )
    return loaded


def _fail(error: object, code: int) -> int:
    print("palestra: " + " ".join(str(error).split()), file=sys.stderr)
    return code


COMMANDS = (
    "train",
    "submit",
    "sft",
    "eval",
    "export",
    "plan",
    "tasks",
    "score",
    "new",
    "show",
    "replay",
    "dashboard",
    "config",
    "doctor",
    "sandbox",
    "envs",
    "rewards",
)

if __name__ == "__main__":
    sys.exit(main())
