"""Documents made of facts, questions about them, and replies that keep to them."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from palestra.envs.answer import ANSWER
from palestra.envs.puzzle import Slot
from palestra.rl.types import AnswerCheck, Task

FIRST_NAMES = tuple("Ada Ben Cleo Dan Eva Finn".split())
SURNAMES = tuple("Berg Holm Lind Marsh Stone Vale".split())
CITIES = tuple("Arle Bren Corva Delm Estra Forn".split())
TRADES = ("baker", "smith", "pilot", "gardener", "clock maker", "bee keeper")
TEAMS = tuple("red blue green amber violet grey".split())
PETS = tuple("dog cat parrot goat tortoise pony".split())
PEOPLE_OF = {1: 2, 2: 3, 3: 5, 4: 7}
ASKED_OF = {1: 2, 2: 3, 3: 4, 4: 5}
"""People in the document, and questions, by difficulty."""


@dataclass(frozen=True)
class Relation:
    """How a fact is told, told of the past, and asked for; and the words by which a sentence about
    it is known, which no other relation has."""

    told: str
    past: str
    asked: str
    cues: tuple[str, ...]
    values: Sequence[str]


RELATIONS: Mapping[str, Relation] = {
    "city": Relation(
        told="{who} lives in {value}.",
        past="Until {year}, {who} lived in {value}.",
        asked="where {who} lives",
        cues=("lives", "home", "city"),
        values=CITIES,
    ),
    "trade": Relation(
        told="{who} works as a {value}.",
        past="{who} gave up work as a {value} in {year}.",
        asked="what {who} works as",
        cues=("works", "job", "trade"),
        values=TRADES,
    ),
    "age": Relation(
        told="{who} is {value} years old.",
        past="In {year}, somebody took {who} for {value}.",
        asked="how old {who} is",
        cues=("old", "age", "aged"),
        values=[str(age) for age in range(21, 80)],
    ),
    "team": Relation(
        told="{who} plays for the {value} team.",
        past="{who} left the {value} team in {year}.",
        asked="which team {who} plays for",
        cues=("plays", "team"),
        values=TEAMS,
    ),
    "pet": Relation(
        told="{who} keeps a {value}.",
        past="In {year}, {who} gave a {value} away.",
        asked="which animal {who} keeps",
        cues=("keeps", "animal", "pet"),
        values=PETS,
    ),
    "arrival": Relation(
        told="{who} came to the valley in {value}.",
        past="{who} first saw the valley on a visit in {year}.",
        asked="when {who} came to the valley",
        cues=("came", "arrived", "valley"),
        values=[str(year) for year in range(1990, 2010)],
    ),
}
PROMPT = """\
{document}

Say {asked}. Use the document alone, and write one sentence for each answer: the full name, the \
answer, and the words of the document, as in "{example}" Where the document leaves it open, write \
"The document does not say" and what it does not say. Write nothing else."""


def document_task(env: str, kind: str, slot: Slot) -> Task:
    """A document, and questions of which it leaves some open.

    From difficulty 2 on it also tells of the past, from 3 on people share names.
    """
    rng, difficulty = slot.random, slot.difficulty
    people = _people(rng, difficulty)
    told = {
        who: {
            name: rng.choice(RELATIONS[name].values)
            for name in rng.sample(sorted(RELATIONS), rng.randint(3, 5))
        }
        for who in people
    }
    questions = list(product(people, RELATIONS))
    is_open = [(who, name) for who, name in questions if name not in told[who]]
    is_told = [(who, name) for who, name in questions if name in told[who]]
    unknown = rng.sample(is_open, difficulty // 2)
    asked = [*unknown, *rng.sample(is_told, ASKED_OF[difficulty] - len(unknown))]
    rng.shuffle(asked)
    expected = json.dumps(
        {
            "cues": {name: relation.cues for name, relation in RELATIONS.items()},
            "known": told,
            "asked": asked,
        }
    )
    return Task(
        id=slot.id,
        source=env,
        kind=kind,
        prompt=PROMPT.format(
            document=_document(rng, told, difficulty),
            asked="; ".join(RELATIONS[name].asked.format(who=who) for who, name in asked),
            example="Gus Reed is 50 years old.",
        ),
        files={},
        reference={ANSWER: " ".join(_reply(who, name, told) for who, name in asked)},
        artifacts=(ANSWER,),
        hidden=tuple(
            AnswerCheck(id=f"{slot.id}#{name}", verifier=name, expected=expected, path=ANSWER)
            for name in ("supported", "answered")
        ),
        labels=slot.labels,
    )


def _people(rng: random.Random, difficulty: int) -> list[str]:
    first_names = FIRST_NAMES[:3] if difficulty >= 3 else FIRST_NAMES
    names = [" ".join(both) for both in product(first_names, SURNAMES)]
    return rng.sample(names, PEOPLE_OF[difficulty])


def _document(rng: random.Random, told: Mapping[str, Mapping[str, str]], difficulty: int) -> str:
    paragraphs = []
    for who, facts in told.items():
        lines = [RELATIONS[name].told.format(who=who, value=value) for name, value in facts.items()]
        if difficulty > 1:
            name = rng.choice(sorted(RELATIONS))
            others = [v for v in RELATIONS[name].values if v != facts.get(name)]
            year, value = rng.randint(1990, 2020), rng.choice(others)
            lines.append(RELATIONS[name].past.format(who=who, value=value, year=year))
        rng.shuffle(lines)
        paragraphs.append(" ".join(lines))
    return "\n\n".join(paragraphs)


def _reply(who: str, name: str, told: Mapping[str, Mapping[str, str]]) -> str:
    relation = RELATIONS[name]
    if name in told[who]:
        return relation.told.format(who=who, value=told[who][name])
    return f"The document does not say {relation.asked.format(who=who)}."
