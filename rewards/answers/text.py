"""Answers that are a text or a choice."""

from __future__ import annotations

import re


async def exact(text: str, expected: str) -> str:
    """Right when both are the same text but for white space and upper and lower case.

    Example: ``await exact(" New  York", "new york")`` is empty
    """
    return "" if _plain(text) == _plain(expected) else "another text"


async def choice(text: str, expected: str) -> str:
    """Right when the answer is the one letter expected, alone or as in ``(B)`` or ``B.``"""
    found = re.fullmatch(r"\(?([A-Za-z])[).:]{0,2}", text.strip())
    if found is None:
        return "not one letter"
    return "" if found[1].upper() == expected.strip().upper() else "another choice"


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()
