"""Text of others inside text of ours: what is quoted never becomes a control token."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeAlias

from palestra.rl.types import Tokenizer


@dataclass(frozen=True, slots=True)
class Quote:
    """Text that a task, a file, a tool or a policy brought in.

    Example: ``["<|im_start|>tool\\n", Quote("1 of 2 passed"), "<|im_end|>\\n"]``
    """

    text: str


Markup: TypeAlias = Sequence[str | Quote]
"""Text of ours, in which markers are control tokens, and quotes, in which they are text."""


def text_of(markup: Markup) -> str:
    """The text as a person reads it."""
    return "".join(part.text if isinstance(part, Quote) else part for part in markup)


def ids_of(markup: Markup, tokenizer: Tokenizer) -> list[int]:
    """Token ids: control tokens come from our own text alone.

    What stands between two of them is spelled as one text, quoted or not: a quote that holds no
    marker gets the ids that the tokenizer gives the whole text.
    """
    ids: list[int] = []
    text = ""
    for piece in _pieces(markup, tokenizer):
        if isinstance(piece, str):
            text += piece
        else:
            ids += [*tokenizer.spell(text), piece]
            text = ""
    return ids + tokenizer.spell(text)


def _pieces(markup: Markup, tokenizer: Tokenizer) -> Iterable[str | int]:
    for quoted, parts in groupby(markup, lambda part: isinstance(part, Quote)):
        text = text_of(list(parts))
        yield from [text] if quoted else tokenizer.split(text)
