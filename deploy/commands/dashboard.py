"""``palestra dashboard``."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from palestra.deploy.console import Console
from palestra.deploy.dashboard.serve import ServeOptions, serve


def run(args: Namespace) -> int:
    """Show runs in a browser until interrupted."""
    options = ServeOptions(
        host=args.host,
        port=args.port,
        cache=_path(args.cache),
        token_file=_path(args.token_file),
        certificate=_path(args.tls_cert),
        key=_path(args.tls_key),
        proxied=args.behind_proxy,
    )
    with Console() as console:
        return serve(Path(args.runs), options, console)


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None
