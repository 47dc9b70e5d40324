"""Our modules as they travel into boxes, to be run by whatever Python is there."""

from __future__ import annotations

import importlib.util
import marshal
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

MAGIC = importlib.util.MAGIC_NUMBER
"""Which code a Python can run: where it has the same, compiling again would be time lost."""

BOOT = """
import sys
sys.path[:] = [p for p in sys.path if p]
import marshal, os
def take(size):
    chunks = []
    while size:
        data = os.read(0, size)
        if not data:
            raise SystemExit(3)
        chunks.append(data)
        size -= len(data)
    return b"".join(chunks)
magic, modules, entry, plan = marshal.loads(take(int.from_bytes(take(4), "big")))
same = getattr(sys.modules["_frozen_importlib_external"], "MAGIC_NUMBER", None) == magic
for name, code, text in modules:
    module = sys.modules[name] = type(sys)(name)
    exec(marshal.loads(code) if same else compile(text, name, "exec"), module.__dict__)
sys.modules[entry].main(plan)
"""
"""What ``PYTHON`` runs: it reads the frame of ``booted`` from standard input, and not a byte more.
"" leaves the module path at once."""

PYTHON = ("python3", "-s", "-S", "-c", BOOT)
"""Not -I: it would ignore PYTHONHASHSEED, and verdicts should not depend on the order of sets. The
environment is made by us, so PYTHON* variables are no danger."""


def booted(modules: tuple[str, ...], entry: str, plan: Mapping[str, object]) -> bytes:
    """The frame that makes ``PYTHON`` load modules of ours and call ``entry.main(plan)``."""
    # Version 2 of marshal is read by every Python 3; the code inside only by our own version.
    return framed(marshal.dumps((MAGIC, packed(*modules), f"palestra.{entry}", dict(plan)), 2))


def framed(data: bytes) -> bytes:
    """``data`` after its length in four bytes."""
    return len(data).to_bytes(4, "big") + data


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
