"""``palestra envs`` and ``palestra rewards``: what is installed, plugins included."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from palestra.deploy.table import aligned

if TYPE_CHECKING:
    from palestra.rl.plugins import Row


def envs(args: Namespace) -> int:
    """List the environments."""
    from palestra.envs.registry import ENVIRONMENTS

    return _print(ENVIRONMENTS.describe(), as_json=args.json)


def rewards(args: Namespace) -> int:
    """List the reward functions."""
    from palestra.rewards.registry import REWARDS

    return _print(REWARDS.describe(), as_json=args.json)


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
