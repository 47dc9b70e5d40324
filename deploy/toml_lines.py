"""Line numbers of the keys of a TOML text, which the standard parser does not tell."""

from __future__ import annotations

import re

_TABLE = re.compile(r"\s*\[\s*([A-Za-z0-9_.\-\s\"']+?)\s*\]\s*(#.*)?$")
_KEY = re.compile(r"\s*([A-Za-z0-9_.\-\"'\s]+?)\s*=")


def key_lines(text: str) -> dict[str, int]:
    """Dotted key -> line, from 1; a line inside a multi-line string may be taken for a key.

    Example: ``key_lines("[rl]\\nsteps = 3\\n") == {"rl.steps": 2}``
    """
    lines: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := _TABLE.match(line):
            table = _dotted(header[1]) + "."
        elif key := _KEY.match(line):
            lines.setdefault(table + _dotted(key[1]), number)
    return lines


def _dotted(text: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in text.split("."))
