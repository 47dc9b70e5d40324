"""Our modules as they travel into boxes, to be run by whatever Python is there."""

from __future__ import annotations

import importlib.util
import marshal
from functools import cache
from importlib.resources import files

MAGIC = importlib.util.MAGIC_NUMBER
"""Which code a Python can run: where it has the same, compiling again would be time lost."""


@cache
def packed(*names: str) -> list[tuple[str, bytes, str]]:
    """Full name, code (by ``marshal``, for Pythons with our ``MAGIC``) and text of modules.

    Example: ``packed("sandbox.codec")[0][0] == "palestra.sandbox.codec"``
    """
    found: list[tuple[str, bytes, str]] = []
    for name in names:
        folder, _, file = name.rpartition(".")
        text = (files(f"palestra.{folder}") / f"{file}.py").read_text()
        code = compile(text, f"<{file}>", "exec", dont_inherit=True)
        found.append((f"palestra.{name}", marshal.dumps(code), text))
    return found
