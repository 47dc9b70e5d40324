"""What a judge said of a group, as lines that are safe to print."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from palestra.deploy.text import clean, one_line
from palestra.rl.types import Judgement


def judgement_lines(judgements: Iterable[Judgement]) -> Iterator[str]:
    """Each reply of the judge under its headline. Its prompt repeats what the group shows; it is in
    the journal, in ``palestra show --json`` and in the page of a group."""
    for judgement in judgements:
        yield ""
        yield f"--- {headline(judgement)}"
        yield clean(judgement.opinion.text)


def headline(judgement: Judgement) -> str:
    """Who judged whom, what was decided, and tokens read and written.

    Example: ``judge policy@7 on g/000, g/001: second  90 + 12 tokens``
    """
    opinion = judgement.opinion
    about = ", ".join(map(one_line, judgement.about))
    size = f"{opinion.input_tokens} + {opinion.output_tokens} tokens"
    return f"judge {one_line(opinion.judge)} on {about}: {decision(judgement)}  {size}"


def decision(judgement: Judgement) -> str:
    """The answer without its key, or that there is none.

    Example: ``first``
    """
    if judgement.choice is None:
        return "no verdict"
    return one_line(judgement.answers[judgement.choice].rpartition("-")[0])
