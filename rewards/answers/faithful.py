"""Replies about a document whose facts are known, judged sentence by sentence.

``expected`` is JSON: the cue words of each relation, what the document says of each subject, and
what was asked. ``{"cues": {"city": ["lives"], "age": ["old"]}, "known": {"Ada": {"city": "Bren"}},
"asked": [["Ada", "city"], ["Ada", "age"]]}``: the document does not say how old Ada is.
"""

from __future__ import annotations

import json

from palestra.rewards.faithfulness.claims import Claim, Facts, claim_of, unsupported
from palestra.rewards.faithfulness.sentences import sentences
from palestra.rl.errors import TaskError


async def supported(text: str, expected: str) -> str:
    """Right when there are sentences, and the document supports each of them."""
    facts, _ = _spec(expected)
    said = sentences(text)
    if not said:
        return "nothing is said"
    wrong = [(sentence, why) for sentence in said if (why := unsupported(sentence, facts))]
    return "{1} (in {0!r})".format(*wrong[0]) if wrong else ""


async def answered(text: str, expected: str) -> str:
    """Right when each question has a sentence of its own, and nothing else is said."""
    facts, asked = _spec(expected)
    claims = [claim_of(sentence, facts) for sentence in sentences(text)]
    about = [(c.subject, c.relation) for c in claims if isinstance(c, Claim)]
    if missing := [question for question in asked if question not in about]:
        return f"not answered: {', '.join(missing[0])}"
    if other := [question for question in about if question not in asked]:
        return f"not asked for: {', '.join(other[0])}"
    return ""


def _spec(expected: str) -> tuple[Facts, list[tuple[str, str]]]:
    try:
        spec = json.loads(expected)
        facts = Facts(
            cues={str(name): tuple(cues) for name, cues in spec["cues"].items()},
            known={str(name): dict(of_name) for name, of_name in spec["known"].items()},
        )
        return facts, [(str(subject), str(relation)) for subject, relation in spec["asked"]]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise TaskError(f"expected has not the form that its verifier reads: {error}") from error
