"""What a judge said of a group, as lines that are safe to print."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from palestra.deploy.text import clean, one_line
from palestra.rl.types import Judgement


def judgement_lines(judgements: Iterable[Judgement]) -> Iterator[str]:
    """Each reply of the judge under a line that names whom it is about and what it decided. Its
    prompt repeats what the group shows; it is in the journal and in ``palestra show --json``."""
    for judgement in judgements:
        opinion = judgement.opinion
        about = ", ".join(map(one_line, judgement.about))
        size = f"{opinion.input_tokens} + {opinion.output_tokens} tokens"
        yield ""
        yield f"--- judge {one_line(opinion.judge)} on {about}: {decision(judgement)}  {size}"
        yield clean(opinion.text)


def decision(judgement: Judgement) -> str:
    """The answer without its key, or that there is none.

    Example: ``first``
    """
    if judgement.choice is None:
        return "no verdict"
    return one_line(judgement.answers[judgement.choice].rpartition("-")[0])
