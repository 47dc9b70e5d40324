"""Trajectories and rewards as lines of JSON; what comes back is read as JSON, never unpickled.

Experts' routing stays behind: it is large, and says nothing to a reward.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from pydantic import TypeAdapter, ValidationError

from palestra.rl.types import Reward, Trajectory


def packed(trajectories: Sequence[Trajectory], judge: str = "") -> bytes:
    """One line, with the path at which a judge is asked; half a surrogate pair is kept."""
    plain = [
        replace(t, turns=tuple(replace(u, routing=None) for u in t.turns)) for t in trajectories
    ]
    episodes = _trajectories().dump_python(plain, mode="json")
    return json.dumps({"episodes": episodes, "judge": judge}).encode()


def unpacked(line: bytes) -> tuple[list[Trajectory], str]:
    """What ``packed`` was given."""
    row = json.loads(line)
    return _trajectories().validate_python(row["episodes"]), str(row["judge"])


def rewards_from(rows: object) -> list[Reward]:
    """The rewards that a child wrote; raises ``ValueError``. Their numbers are still to be
    checked."""
    try:
        return _rewards().validate_python(rows)
    except ValidationError as error:
        raise ValueError("no list of rewards") from error


def rows_of(rewards: Sequence[Reward]) -> object:
    """What ``rewards_from`` reads."""
    return _rewards().dump_python(list(rewards), mode="json")


@cache
def _trajectories() -> TypeAdapter[list[Trajectory]]:
    return TypeAdapter(list[Trajectory])


@cache
def _rewards() -> TypeAdapter[list[Reward]]:
    return TypeAdapter(list[Reward])
