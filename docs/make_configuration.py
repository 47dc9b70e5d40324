"""Writes docs/configuration.md from the docstrings of the configuration models.

.venv/bin/python docs/make_configuration.py
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from palestra.deploy.config import RunConfig
from palestra.deploy.config_file import KeyDoc, describe_keys
from palestra.rl.settings import Settings

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
    for section, keys in groupby(describe_keys(), key=lambda key: key.key.rpartition(".")[0]):
        title = f"`[{section}]`" if section else "The run"
        about = _docstring(section)
        rows = "".join(_row(key) for key in keys)
        parts.append(f"\n## {title}\n\n{about}\n\n| key | type | default | what |\n")
        parts.append(f"| --- | --- | --- | --- |\n{rows}")
    return "".join(parts)


def _row(key: KeyDoc) -> str:
    cells = (f"`{key.key}`", f"`{key.type}`", f"`{json.dumps(key.default)}`", key.doc)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells).rstrip() + " |\n"


def _docstring(section: str) -> str:
    model: type[Settings] = RunConfig
    for name in _names(section):
        kind = model.model_fields[name].annotation
        assert isinstance(kind, type) and issubclass(kind, Settings)
        model = kind
    return " ".join((model.__doc__ or "").split())


def _names(section: str) -> Iterator[str]:
    yield from filter(None, section.split("."))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
