"""Questions that take several steps through several tables."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from palestra.envs.puzzle import Puzzle

PEOPLE = tuple("Ada Ben Cleo Dan Eva Finn Gus Hana Ivo Jana Kim Leo Mia Nils Olga Pit".split())
TEAMS = tuple("red blue green amber violet grey".split())
CITIES = tuple("Arle Bren Corva Delm Estra Forn".split())
ROWS = {1: 4, 2: 8, 3: 12, 4: 16}
GROUPS = {1: 2, 2: 3, 3: 4, 4: 6}
"""People, and teams (each in a city of its own), by difficulty."""

World = tuple[dict[str, str], dict[str, str], dict[str, int]]
"""Team of each person, city of each team, points of each person."""


def tables(rng: random.Random, difficulty: int) -> Puzzle:
    """A question about three tables; at difficulty 1 it takes two look-ups."""
    people, teams = list(PEOPLE[: ROWS[difficulty]]), list(TEAMS[: GROUPS[difficulty]])
    cities = rng.sample(CITIES, len(teams))
    # Every team has a member: questions about it have an answer.
    members = [*teams, *(rng.choice(teams) for _ in people[len(teams) :])]
    team_of = dict(zip(rng.sample(people, len(people)), members, strict=True))
    city_of = dict(zip(teams, cities, strict=True))
    points = dict(zip(people, rng.sample(range(1, 100), len(people)), strict=True))
    ask = _where if difficulty == 1 else rng.choice([_where, _most, _sum][:difficulty])
    question, answer, verifier = ask(rng, (team_of, city_of, points))
    shown = [
        _table(("person", "team"), [(who, team_of[who]) for who in people]),
        _table(("team", "city"), list(city_of.items())),
        _table(("person", "points"), [(who, str(points[who])) for who in people]),
    ]
    return Puzzle(
        prompt="\n\n".join([*shown, question]),
        verifier=verifier,
        expected=answer,
        solution=answer,
    )


Asked = tuple[str, str, str]
"""A question, its answer, and the verifier."""


def _where(rng: random.Random, world: World) -> Asked:
    team_of, city_of, _ = world
    who = rng.choice(sorted(team_of))
    return f"In which city is {who}'s team?", city_of[team_of[who]], "exact"


def _most(rng: random.Random, world: World) -> Asked:
    city, points = _points_in_a_city(rng, world)
    best = max(points, key=lambda who: points[who])
    return f"Who has the most points among those whose team is in {city}?", best, "exact"


def _sum(rng: random.Random, world: World) -> Asked:
    city, points = _points_in_a_city(rng, world)
    question = f"How many points have those together whose team is in {city}?"
    return question, str(sum(points.values())), "numeric"


def _points_in_a_city(rng: random.Random, world: World) -> tuple[str, dict[str, int]]:
    team_of, city_of, points = world
    team = rng.choice(sorted(city_of))
    return city_of[team], {who: points[who] for who in team_of if team_of[who] == team}


def _table(head: tuple[str, str], rows: Sequence[tuple[str, str]]) -> str:
    line: Callable[[tuple[str, str]], str] = " | ".join
    return "\n".join(map(line, [head, *rows]))
