"""The process that compares expressions; see ``symbolic``. Lines as of
``Children``, all JSON.

Expressions are read as LaTeX alone, by a grammar: the reader of plain expressions would evaluate
text as Python. The one argument is the processor time in seconds that a comparison may take: the
kernel ends a process that takes more, in the midst of whatever it computes.
"""

from __future__ import annotations

import json
import math
import resource
import sys
import time
from functools import cache
from typing import Any

MEMORY = 2 << 30


def main() -> None:
    """Answer until the input ends."""
    seconds = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _read("1")
    _answer("0", {})
    for line in sys.stdin:
        number, _, row = line.partition(" ")
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        until = math.ceil(time.process_time()) + seconds
        resource.setrlimit(resource.RLIMIT_CPU, (until, hard))
        text, expected = json.loads(row)
        _answer(number, compare(text, expected))


def compare(text: str, expected: str) -> dict[str, str]:
    """``{"wrong": reason}``, empty if right, or ``{"expected": reason}`` if that is no expression.

    Example: ``compare("0.5", "1/2") == {"wrong": ""}``
    """
    from math_verify import verify

    wanted = _read(expected)
    if not wanted:
        return {"expected": "not an expression"}
    try:
        got = _read(text)
        if any(_unfinished(part) for part in got):
            return {"wrong": "an expression that still has to be worked out"}
        same = bool(got) and verify(wanted, got, timeout_seconds=None)
    except (MemoryError, RecursionError, ValueError, ArithmeticError):
        return {"wrong": "not to be read within the limits"}
    return {"wrong": "" if same else "another value" if got else "not an expression"}


def _read(text: str) -> list[Any]:
    from math_verify import parse

    # More than one formula would be read as a choice among them.
    inner = text.strip().removesuffix(".").strip("$").strip()
    if "$" in inner or "\\boxed" in inner:
        return []
    found = parse(f"${inner}$", extraction_config=[_latex()], parsing_timeout=None)
    return list(found) if any(not isinstance(part, str) for part in found) else []


def _unfinished(part: Any) -> bool:
    """Does it repeat the question, as a derivative or an integral that nobody has taken?"""
    from sympy import Basic, Derivative, Integral, Limit, Product, Sum

    return isinstance(part, Basic) and part.has(Derivative, Integral, Limit, Product, Sum)


@cache
def _latex() -> Any:
    from math_verify import LatexExtractionConfig

    return LatexExtractionConfig()


def _answer(number: str, row: dict[str, Any]) -> None:
    sys.stdout.write(f"{number} {json.dumps(row)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
