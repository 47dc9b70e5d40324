"""``palestra new env`` and ``new reward``: a package of one's own to start from, with its tests."""

from __future__ import annotations

import builtins
import keyword
import re
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

from palestra import __version__
from palestra.envs.registry import ENVIRONMENTS
from palestra.rewards.registry import REWARDS
from palestra.rl.errors import UserError
from palestra.rl.plugins import Registry

TEMPLATES = Path(__file__).parents[1] / "templates"
SUFFIX = ".template"
ENV_NAME = re.compile(r"[a-z][a-z0-9_-]*/(?P<title>[A-Z][A-Za-z0-9]*)-v[0-9]+")
REWARD_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


def env(args: Namespace) -> int:
    """Write the package of an environment."""
    found = ENV_NAME.fullmatch(args.name)
    if found is None:
        raise UserError(f"{args.name!r} names no environment; write it like acme/Times-v0")
    _check_free(ENVIRONMENTS, args.name)
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", found["title"]).lower()
    return _write("environment", words, args, symbol=found["title"] + "Env")


def reward(args: Namespace) -> int:
    """Write the package of a reward."""
    name = args.name
    if not REWARD_NAME.fullmatch(name) or keyword.iskeyword(name) or hasattr(builtins, name):
        raise UserError(f"{name!r} names no reward; write it like few_turns, no word of Python")
    _check_free(REWARDS, name)
    return _write("reward", name.replace("_", "-"), args, symbol=name)


def _check_free(registry: Registry[Any], name: str) -> None:
    if name in registry.ours or name in registry.plugins():
        raise UserError(f"the {registry.kind} {name} is there already; choose another name")


def _write(template: str, words: str, args: Namespace, *, symbol: str) -> int:
    """Fill the files of a template into a new folder, and say what to do next."""
    package = f"palestra-{words}"
    values = {
        "name": args.name,
        "package": package,
        "module": package.replace("-", "_"),
        "symbol": symbol,
        "palestra": __version__,
    }
    folder = Path(args.dir or package)
    try:
        folder.mkdir()
        for path, text in _filled(TEMPLATES / template, values).items():
            (folder / path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; choose a new folder with --dir") from error
    print(f"{folder}: a package with {args.name}; its README.md has the commands to try it")
    return 0


def _filled(template: Path, values: Mapping[str, str]) -> dict[str, str]:
    """The files of a template by name; ``module`` in a name is the module's."""
    return {
        path.name.removesuffix(SUFFIX).replace("module", values["module"]): Template(
            path.read_text(encoding="utf-8")
        ).substitute(values)
        for path in sorted(template.glob(f"*{SUFFIX}"))
    }
