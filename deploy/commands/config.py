"""``palestra config``: every key of a run with its value and where that comes from."""

from __future__ import annotations

import json
from argparse import Namespace

from palestra.deploy.config_file import DEFAULT, dump, flatten, load_recipe
from palestra.deploy.table import aligned


def run(args: Namespace) -> int:
    """Print the resolved configuration as a table, as TOML or as JSON."""
    resolved = load_recipe(args.recipe, args.set)
    values = flatten(resolved.config)
    if args.toml:
        print(dump(resolved.config), end="")
    elif args.json:
        rows = {k: {"value": v, "source": resolved.sources[k]} for k, v in values.items()}
        print(json.dumps(rows, indent=2))
    else:
        table = [(k, json.dumps(v), _source(resolved.sources[k])) for k, v in values.items()]
        print("\n".join(aligned([("key", "value", "source"), *table])))
    return 0


def _source(source: str) -> str:
    return "" if source == DEFAULT else source
