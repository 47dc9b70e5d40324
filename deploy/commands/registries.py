"""``palestra envs`` and ``palestra rewards``: what is installed, plugins included."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from palestra.deploy.table import aligned
from palestra.rl.errors import UserError

if TYPE_CHECKING:
    from palestra.rewards.kinds import AnyReward, RewardFactory
    from palestra.rl.plugins import Row


def envs(args: Namespace) -> int:
    """List the environments."""
    from palestra.envs.registry import ENVIRONMENTS

    return _print(ENVIRONMENTS.describe(), as_json=args.json)


def rewards(args: Namespace) -> int:
    """List the rewards that have a name, and those that a recipe names as ``module:function``."""
    from palestra.rewards.registry import REWARDS

    rows = [_checked(row, REWARDS.find) for row in REWARDS.describe()]
    return _print([*rows, *_of_recipe(args.recipe)], as_json=args.json)


def _checked(row: Row, find: Callable[[str], AnyReward | RewardFactory]) -> Row:
    """The row with the kind of its reward, or with why it is none."""
    from palestra.rewards.kinds import gives_group

    if row.error:
        return row
    try:
        siblings = gives_group(find(row.name))
    except UserError as error:
        return replace(row, error=str(error))
    return replace(row, summary=f"of siblings: {row.summary}") if siblings else row


def _of_recipe(recipe: str | None) -> Iterator[Row]:
    """One row for each function of its own, with the package that it is from."""
    from palestra.deploy.config_file import load_recipe
    from palestra.rewards.load import load
    from palestra.rl.plugins import Row, origin, summary

    for entry in load_recipe(recipe).config.rewards.use.values():
        if ":" in entry.function:
            thing = load(entry.function)
            package, _, release = origin(thing).partition(" ")
            row = Row(name=entry.function, origin=package, version=release, summary=summary(thing))
            yield _checked(row, load)


def _print(rows: Sequence[Row], *, as_json: bool) -> int:
    """Print the rows; 1 when one of them cannot be used."""
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        table = [
            (
                row.name,
                f"{row.origin} {row.version}".strip(),
                (row.error or row.summary).replace("``", ""),
            )
            for row in rows
        ]
        print("\n".join(aligned([("name", "from", "what it is"), *table])))
    return 1 if any(row.error for row in rows) else 0
