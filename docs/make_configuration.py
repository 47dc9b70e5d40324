"""Writes docs/configuration.md from the docstrings of the configuration models.

.venv/bin/python docs/make_configuration.py
"""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path

from palestra.deploy.config_file import KeyDoc, describe_keys

PAGE = Path(__file__).with_name("configuration.md")

HEAD = """\
# Configuration

<!-- Written by docs/make_configuration.py from the docstrings in the config modules. -->

A run is one TOML file, such as [`recipes/tiny.toml`](../recipes/tiny.toml). Every key has a
default; an unknown key is an error that names the nearest known one. `--set key=value` replaces a
value on the command line, and `palestra config RECIPE` prints every value with where it comes from.
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for (section, about), keys in groupby(describe_keys(), key=_section):
        title = f"`[{section}]`" if section else "The run"
        rows = "".join(map(_row, keys))
        parts.append(f"\n## {title}\n\n{about}\n\n| key | type | default | what |\n")
        parts.append(f"| --- | --- | --- | --- |\n{rows}")
    return "".join(parts)


def _section(key: KeyDoc) -> tuple[str, str]:
    return key.key.rpartition(".")[0], key.section


def _row(key: KeyDoc) -> str:
    cells = (f"`{key.key}`", f"`{key.type}`", f"`{json.dumps(key.default)}`", key.doc)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells).rstrip() + " |\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
