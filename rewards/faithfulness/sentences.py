"""A text cut into sentences by a small rule of ours; nothing but white space and list marks goes.

A sentence ends with its line, and at ``.``, ``!`` or ``?`` (and the quotes or brackets that close
after it) where white space and no small letter follow. A full stop after an initial or one of
``ABBREVIATIONS`` ends nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

ABBREVIATIONS = frozenset("dr mr mrs ms prof st vs no fig e.g i.e approx inc ltd".split())
_MARK = re.compile(r"\s*(?:[-*•]|\d{1,3}[.)])\s+")
# No end begins inside a row of stops, which a policy may make as long as it likes.
_END = re.compile(r"(?<![.!?…])[.!?…]+[\"'”’)\]]*(?=\s)")
_NEXT = re.compile(r"\s*(\S)")
_LAST_WORD = re.compile(r"[\w.]*$")
_LONGEST = max(map(len, ABBREVIATIONS))


def sentences(text: str) -> list[str]:
    """The sentences of a text, in order, without what marks a list.

    Example: ``sentences("1. Dr. Ada is 3.5. So she says!")`` is ``["Dr. Ada is 3.5.",
    "So she says!"]``
    """
    return [sentence for line in text.splitlines() for sentence in _of_line(line)]


def _of_line(line: str) -> Iterator[str]:
    mark = _MARK.match(line)
    start = mark.end() if mark else 0
    for end in _END.finditer(line, start):
        follows = _NEXT.match(line, end.end())
        before = line[max(start, end.start() - _LONGEST - 1) : end.start()]
        if (follows and follows[1].islower()) or _abbreviated(before, end[0]):
            continue
        yield line[start : end.end()].strip()
        start = end.end()
    if last := line[start:].strip():
        yield last


def _abbreviated(before: str, end: str) -> bool:
    found = _LAST_WORD.search(before)
    word = found[0] if found else ""
    initial = len(word) == 1 and word.isupper()
    return end == "." and (initial or word.casefold() in ABBREVIATIONS)
