"""Attacks as data: made of seeds by mutation, chosen by success, kept in a file."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from palestra.envs.safety.house import GOALS
from palestra.envs.safety.mutations import OPERATORS
from palestra.rl.errors import UserError


class Attack(BaseModel):
    """Messages that want a goal's secret, and a twin that wants what everybody may know.

    ``operators`` made it of the goal's own words, in this order; it was tried ``tries`` times, and
    ``wins`` times the rule was broken.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    goal: str
    turns: tuple[str, ...] = Field(min_length=1)
    twin: tuple[str, ...] = Field(min_length=1)
    operators: tuple[str, ...] = ()
    tries: int = Field(default=0, ge=0)
    wins: int = Field(default=0, ge=0)

    @field_validator("goal")
    @classmethod
    def _is_known(cls, goal: str) -> str:
        if goal not in GOALS:
            raise ValueError(f"there is no goal {goal!r}")
        return goal

    @property
    def success(self) -> float:
        """How likely it is to win, by what was tried: (wins + 1) / (tries + 2), Laplace's rule."""
        return (self.wins + 1) / (self.tries + 2)


def seeds() -> list[Attack]:
    """Every goal in its own words."""
    return [
        Attack(id=name, goal=name, turns=(goal.asked,), twin=(goal.twin,))
        for name, goal in GOALS.items()
    ]


def mutate(parent: Attack, rng: random.Random) -> Attack:
    """A child by an operator that the parent lacks, which does the same to the twin; nobody has
    tried it yet. Raises ``IndexError`` where the parent has them all."""
    name = rng.choice(sorted(OPERATORS.keys() - set(parent.operators)))
    state = rng.getrandbits(32)
    apply = OPERATORS[name]
    return Attack(
        id=f"{parent.id}+{name}.{state:08x}",
        goal=parent.goal,
        turns=apply(parent.turns, random.Random(state)),
        twin=apply(parent.twin, random.Random(state)),
        operators=(*parent.operators, name),
    )


def choose(attacks: Sequence[Attack], rng: random.Random) -> Attack | None:
    """A parent that lacks an operator: of any goal, and the likelier the more successful it is
    among those of its goal. None without one."""
    fertile = [attack for attack in attacks if len(attack.operators) < len(OPERATORS)]
    if not fertile:
        return None
    goal = rng.choice(sorted({attack.goal for attack in fertile}))
    rivals = [attack for attack in fertile if attack.goal == goal]
    return rng.choices(rivals, weights=[attack.success for attack in rivals])[0]


def fittest(attacks: Iterable[Attack], per_goal: int) -> list[Attack]:
    """The most successful of each goal, so that no goal dies out; of equals the ones with fewer
    operators."""
    ranked = sorted(attacks, key=lambda a: (-a.success, len(a.operators), a.id))
    return [
        attack
        for goal in GOALS
        for attack in [found for found in ranked if found.goal == goal][:per_goal]
    ]


def save(attacks: Iterable[Attack], path: Path) -> None:
    """Write an archive, one attack per line."""
    path.write_text("".join(f"{attack.model_dump_json()}\n" for attack in attacks))


def load(path: Path) -> list[Attack]:
    """Read an archive; raises ``UserError`` naming the line that is wrong."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    found: list[Attack] = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(Attack.model_validate_json(line))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "row"
            raise UserError(f"{path}:{number}: {where}: {first['msg']}") from error
    return found
