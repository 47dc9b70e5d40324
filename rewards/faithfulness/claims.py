"""Sentences that state one fact in plain words, judged exactly against a table of facts.

What can be judged exactly is narrow: a sentence names one subject, is about one relation (known by
its cue words), and has no other words than a value and ``FILLERS``. Whatever is not of that form is
not supported, so nothing gets through that was not understood: no doubt, no negation, no aside.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

FILLERS = frozenset(
    "a an the is was in at of as for to on with by from has it that this his her their years "
    "where what which when how".split()
)
ABSTAINS = re.compile(
    r"the (?:document|text) (?:does not|doesn[’']t) (?:say|mention|state)\b", re.IGNORECASE
)
"""How a sentence begins that says what the document leaves open."""


@dataclass(frozen=True)
class Facts:
    """``cues`` of each relation, and the value of each relation of each subject; of a relation that
    is missing there, nothing is known.

    Example: ``Facts(cues={"city": ("lives", "home")}, known={"Ada Berg": {"city": "Bren"}})``
    """

    cues: Mapping[str, Sequence[str]]
    known: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Claim:
    """What a sentence says: a value, or None where it says that nothing is known."""

    subject: str
    relation: str
    value: str | None


def claim_of(sentence: str, facts: Facts) -> Claim | str:
    """The one claim of a sentence, or why it is not of the form that can be judged."""
    abstains = ABSTAINS.match(sentence)
    words = _words(sentence[abstains.end() :] if abstains else sentence)
    subjects = [name for name in facts.known if _has(words, _words(name))]
    if len(subjects) != 1:
        return f"names {', '.join(subjects) or 'nobody of the document'}: one is needed"
    words = _without(words, _words(subjects[0]))
    relations = [name for name, cues in facts.cues.items() if set(cues) & set(words)]
    if len(relations) != 1:
        return f"is about {', '.join(relations) or 'nothing of the document'}: one is needed"
    cues = facts.cues[relations[0]]
    rest = " ".join(word for word in words if word not in cues and word not in FILLERS)
    if abstains:
        return f"has more to say: {rest}" if rest else Claim(subjects[0], relations[0], None)
    return Claim(subjects[0], relations[0], rest)


def unsupported(sentence: str, facts: Facts) -> str:
    """Why the facts do not support a sentence; empty when they do.

    Example: ``unsupported("Ada Berg lives in Corva.", facts)`` is ``"Ada Berg, city: the document
    says Bren"``
    """
    claim = claim_of(sentence, facts)
    if isinstance(claim, str):
        return claim
    known = facts.known[claim.subject].get(claim.relation)
    if claim.value == (None if known is None else " ".join(_words(known))):
        return ""
    return f"{claim.subject}, {claim.relation}: the document says {known or 'nothing'}"


def _words(text: str) -> list[str]:
    found = re.findall(r"[^\W_]+(?:[-.’'][^\W_]+)*", text.casefold())
    return [word.removesuffix("'s").removesuffix("’s") for word in found]


def _has(words: Sequence[str], phrase: Sequence[str]) -> bool:
    return len(_without(words, phrase)) < len(words)


def _without(words: Sequence[str], phrase: Sequence[str]) -> list[str]:
    """The words but for every place where the phrase stands."""
    left: list[str] = []
    for word in words:
        left.append(word)
        if left[-len(phrase) :] == list(phrase):
            del left[-len(phrase) :]
    return left
