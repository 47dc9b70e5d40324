"""Requests for a short text with rules that code can check, and a text that obeys them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from palestra.envs.puzzle import Generator, Puzzle

TOPICS = tuple("rivers bridges bread winter clocks gardens maps trains music glass".split())
FILLER = tuple("it is often said that people like them and think about this every day".split())
KEYWORDS = tuple("copper lantern meadow orbit paper quiet ribbon".split())
FORBIDDEN = tuple("very nice good thing really".split())
CLOSINGS = ("that is all for now", "more another day", "so it goes")


@dataclass
class Draft:
    """A text while rules are added that it must obey."""

    paragraphs: list[list[str]]
    closing: str = ""
    marks: list[str] = field(default_factory=list)

    def text(self) -> str:
        """The text; every rule that was added holds."""
        blocks = [" ".join(words) for words in self.paragraphs]
        blocks[-1] = "\n".join([blocks[-1], *self.marks, *([self.closing] if self.closing else [])])
        return "\n\n".join(blocks)


Addition = Callable[[random.Random, Draft], tuple[str, str, dict[str, Any]]]
"""Makes a draft obey one rule more: what it says to people, its name and its arguments."""


def _contains(rng: random.Random, draft: Draft) -> tuple[str, str, dict[str, Any]]:
    word, times = rng.choice(KEYWORDS), rng.randint(2, 3)
    draft.paragraphs[0] += [word] * times
    return (
        f'use the word "{word}" at least {times} times',
        "contains",
        {"word": word, "times": times},
    )


def _avoids(rng: random.Random, draft: Draft) -> tuple[str, str, dict[str, Any]]:
    word = rng.choice(FORBIDDEN)
    return f'do not use the word "{word}"', "avoids", {"word": word}


def _ends(rng: random.Random, draft: Draft) -> tuple[str, str, dict[str, Any]]:
    draft.closing = rng.choice(CLOSINGS)
    return f'end with exactly "{draft.closing}"', "ends", {"phrase": draft.closing}


def _lower(rng: random.Random, draft: Draft) -> tuple[str, str, dict[str, Any]]:
    return "write no capital letter", "lower", {}


def _paragraphs(rng: random.Random, draft: Draft) -> tuple[str, str, dict[str, Any]]:
    count = rng.randint(2, 4)
    draft.paragraphs += [list(FILLER[:6]) for _ in range(count - 1)]
    said = f"write exactly {count} paragraphs with an empty line between them"
    return said, "paragraphs", {"count": count}


def _bullets(rng: random.Random, draft: Draft) -> tuple[str, str, dict[str, Any]]:
    count = rng.randint(2, 5)
    draft.marks = [f"- {word}" for word in rng.sample(FILLER, count)]
    return f'have exactly {count} lines that begin with "- "', "bullets", {"count": count}


ADDITIONS: tuple[Addition, ...] = (_contains, _avoids, _ends, _lower, _paragraphs, _bullets)


def prose(rng: random.Random, difficulty: int) -> Puzzle:
    """A text about a topic with as many rules as its difficulty, and a bound on its words."""
    topic = rng.choice(TOPICS)
    draft = Draft(paragraphs=[[topic, *FILLER]])
    added = [add(rng, draft) for add in rng.sample(ADDITIONS, difficulty)]
    text = draft.text()
    most = len(text.split()) + 20
    rules = [["words", {"least": 10, "most": most}], *([name, given] for _, name, given in added)]
    said = "; ".join([f"use 10 to {most} words", *(words for words, _, _ in added)])
    return Puzzle(
        prompt=f"Write about {topic}. Rules: {said}. The answer is the text alone.",
        verifier="constraints",
        expected=json.dumps(rules),
        solution=text,
    )


def record(rng: random.Random, difficulty: int) -> Puzzle:
    """A JSON object with some keys, each with a short text."""
    names = rng.sample(["title", "author", "place", "mood", "colour", "ending"], difficulty + 1)
    topic = rng.choice(TOPICS)
    return Puzzle(
        prompt=f"Describe {topic} as one JSON object with exactly the keys {', '.join(names)}, "
        "each a text that is not empty. The answer is the object and nothing around it.",
        verifier="constraints",
        expected=json.dumps([["keys", {"names": names}]]),
        solution=json.dumps(dict.fromkeys(names, topic)),
    )


GENERATORS: Mapping[str, Generator] = {"prose": prose, "record": record}
