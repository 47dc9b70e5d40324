"""The answer in a judge's reply, or none."""

from __future__ import annotations

import re
from collections.abc import Sequence

OPEN, CLOSE = "<verdict>", "</verdict>"
END_OF_THOUGHT = "</think>"

_VERDICT = re.compile(rf"{OPEN}([^<>\n]*){CLOSE}")


def verdict_in(reply: str, answers: Sequence[str]) -> int | None:
    """Index of the one of ``answers`` that the reply gives, None when it gives none.

    The last line must be ``<verdict>ANSWER</verdict>`` with one of ``answers``, letter by letter,
    and no other verdict of ours may stand before it; what was thought up to ``</think>`` does not
    count. The answers of a question hold its key, so a verdict that the judge merely repeats from a
    text it was shown is none of them: it is neither believed nor in the way.

    Example: ``verdict_in("Clearer.\\n<verdict>second-4be1</verdict>", ("first-4be1",
    "second-4be1"))`` is 1
    """
    said = reply.rpartition(END_OF_THOUGHT)[2].strip()
    given = [found for found in _VERDICT.findall(said) if found in answers]
    last = said.rpartition("\n")[2].strip()
    if len(given) != 1 or last != written(given[0]):
        return None
    return list(answers).index(given[0])


def written(answer: str) -> str:
    """The line by which a judge gives an answer."""
    return f"{OPEN}{answer}{CLOSE}"
