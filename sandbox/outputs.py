"""When what a program printed counts as what was expected.

Also runs inside the box, where long outputs become digests: standard library only.
"""

from __future__ import annotations

import math

WHOLE = 4096
"""Bytes of an output that always leaves the box as it is."""

_MAX_DIGITS = 100


def words(text: str, *, by_line: bool) -> list[list[str]]:
    """The words of each line, blank lines at both ends left out; all as one unless ``by_line``."""
    return [line.split() for line in text.strip().split("\n")] if by_line else [text.split()]


def digest(text: str, *, by_line: bool) -> bytes:
    """The same for texts of the same words, and for no others."""
    import hashlib  # OpenSSL would be copied by every fork of a warm box

    joined = "\n".join(" ".join(line) for line in words(text, by_line=by_line))
    return hashlib.sha256(joined.encode(errors="replace")).digest()


def has_decimals(text: str) -> bool:
    """Whether a word is a number with a point or an exponent, which needs a tolerance."""
    return any(map(_is_decimal, text.split()))


def matches(expected: str, got: str, *, tolerance: float, by_line: bool) -> bool:
    """Equal words, numbers with a point or an exponent within ``tolerance``."""
    left, right = words(expected, by_line=by_line), words(got, by_line=by_line)
    return len(left) == len(right) and all(
        len(a) == len(b) and all(_same(x, y, tolerance) for x, y in zip(a, b, strict=True))
        for a, b in zip(left, right, strict=True)
    )


def _same(expected: str, got: str, tolerance: float) -> bool:
    if expected == got:
        return True
    allowed = tolerance if _is_decimal(expected) else 0.0
    wanted, value = _number(expected), _number(got)
    if wanted is None or value is None or not (_is_decimal(expected) or _is_decimal(got)):
        return False
    return math.isclose(wanted, value, rel_tol=allowed, abs_tol=allowed)


def _is_decimal(word: str) -> bool:
    return any(mark in word for mark in ".eE") and _number(word) is not None


def _number(word: str) -> float | None:
    if len(word) > _MAX_DIGITS or "_" in word:
        return None
    try:
        value = float(word)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
