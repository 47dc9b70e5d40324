"""What good means: rubrics, read from data files."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints, ValidationError

from palestra.rl.errors import UserError
from palestra.rl.settings import Settings

SUFFIX = ".toml"

_Id = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]*$")]
_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Rubric(Settings):
    """One thing to look for in a response."""

    id: _Id
    """Name, unique among the rubrics of a judge: `no-praise`."""
    text: _Text
    """What a judge is told."""
    mandatory: bool = False
    """A response that fails it loses to every response that fails no such rubric."""


class Criteria(Settings):
    """A file of rubrics."""

    about: _Text
    """Where they come from, and what they are for; not shown to judges."""
    rubric: tuple[Rubric, ...] = Field(min_length=1)
    """The rubrics, in the order in which a judge sees them."""


def read_rubrics(names: Iterable[str]) -> tuple[Rubric, ...]:
    """The rubrics of several files, in order: a name is one of ``shipped()``, and what ends in
    ``.toml`` is a path. Raises ``UserError`` for a file that is missing or wrong, and for an id
    that occurs twice."""
    rubrics = [rubric for name in names for rubric in _read(name).rubric]
    seen: set[str] = set()
    for rubric in rubrics:
        if rubric.id in seen:
            raise UserError(f"rubric {rubric.id!r} is there twice; rename one or leave out a file")
        seen.add(rubric.id)
    return tuple(rubrics)


def shipped() -> list[str]:
    """Names of the files that come with palestra.

    Example: ``["annotated_patch", "core", "prescriptive"]``
    """
    found = (files("palestra.rewards") / "criteria").iterdir()
    return sorted(f.name.removesuffix(SUFFIX) for f in found if f.name.endswith(SUFFIX))


def _read(name: str) -> Criteria:
    if name.endswith(SUFFIX):
        file = Path(name)
    elif name in shipped():
        file = files("palestra.rewards") / "criteria" / (name + SUFFIX)  # type: ignore[assignment]
    else:
        raise UserError(f"no criteria {name!r}; there are {', '.join(shipped())}, or name a .toml")
    try:
        return Criteria.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{name}: {where}: {first['msg']}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{name}: cannot be read as rubrics: {error}") from error
