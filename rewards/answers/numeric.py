"""Answers that are one number."""

from __future__ import annotations

import re
from fractions import Fraction

from palestra.rl.errors import TaskError

NUMBER = re.compile(
    r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:[eE][-+]?\d{1,3})?(?:/\d+)?", re.ASCII
)
LONGEST = 400
"""Characters of the longest number that is read; ours."""


async def numeric(text: str, expected: str) -> str:
    """Right when the answer is the expected number: ``expected`` is a number, or a number and how
    far off the answer may be, as in ``3.1416 ± 0.001``. Without that it must be equal: 1/2 and 0.5
    are, 0.333 and 1/3 are not.

    Example: ``await numeric("1,200", "1.2e3")`` is empty
    """
    middle, _, spread = expected.partition("±")
    wanted, off = number(middle), number(spread) if spread else Fraction(0)
    if wanted is None or off is None:
        raise TaskError(f"expected {expected!r} is not a number")
    got = number(text)
    if got is None:
        return "not a number"
    return "" if abs(got - wanted) <= off else "another number"


def number(text: str) -> Fraction | None:
    """The number that a text is, or None; what is around it (``$``, a full stop) is taken off."""
    text = text.strip().removesuffix(".").strip("$ ")
    if len(text) > LONGEST or not NUMBER.fullmatch(text):
        return None
    top, _, bottom = text.replace(",", "").partition("/")
    try:
        return Fraction(top) / Fraction(bottom or 1)
    except (ValueError, ZeroDivisionError):
        return None
