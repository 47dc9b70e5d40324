"""``palestra show``."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from palestra.deploy.console import Console
from palestra.deploy.show import ShowOptions, show


def run(args: Namespace) -> int:
    """Show a run, or one of its groups."""
    options = ShowOptions(
        step=args.step,
        group=args.group,
        html=Path(args.html) if args.html else None,
        tokens=args.tokens,
        as_json=args.json,
    )
    with Console() as console:
        return show(Path(args.run), options, console)
