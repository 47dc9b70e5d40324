"""Numbers and names that a sentence has and its context has not: what code can find in any text.

Known names and numbers that are put together wrongly go unseen: for that, the facts must be known
(``claims``), or a judge asked (``judged``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_NUMBER = re.compile(r"\d+(?:[.,:/-]\d+)*")
_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class Context:
    """The numbers and the words that a text has, to be looked up often."""

    numbers: frozenset[str]
    words: frozenset[str]


def context_of(text: str) -> Context:
    """What ``text`` can support."""
    words = frozenset(word.casefold() for word in _WORD.findall(text))
    return Context(numbers=frozenset(_numbers(text)), words=words)


def checkable(sentence: str) -> list[str]:
    """The numbers of a sentence, and its words that begin with a capital but for the first one."""
    words = _WORD.findall(sentence)
    names = [word for word in words[1:] if word[0].isupper() and word != "I"]
    return [*_numbers(sentence), *names]


def made_up(sentence: str, context: Context) -> list[str]:
    """The numbers and names that the context does not have.

    Example: ``made_up("Ada paid 1,200 to Ben.", context_of("Ada paid 1200."))`` is ``["Ben"]``
    """
    return [
        item
        for item in checkable(sentence)
        if item not in context.numbers and item.casefold() not in context.words
    ]


def _numbers(text: str) -> list[str]:
    """Numbers without the commas between thousands, so that 1,200 is 1200."""
    return [re.sub(r"(?<=\d),(?=\d{3}\b)", "", number) for number in _NUMBER.findall(text)]
