"""Episodes that said something."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import pytest

from palestra.rl.types import Message, Outcome, Stop, Trajectory, Turn

Said: TypeAlias = Callable[..., list[Trajectory]]


@pytest.fixture
def said() -> Said:
    """Makes the episodes of one group, with one reply each: ``g/0``, ``g/1``, ..."""
    return _said


def _said(*texts: str, group: str = "g", step: int = 1, patch: str = "") -> list[Trajectory]:
    return [
        Trajectory(
            id=f"{group}/{number}",
            group_id=group,
            task_id="task",
            step=step,
            prompt=(Message(role="user", content="Write a line."),),
            turns=(_turn(text),),
            stop=Stop.SUBMITTED,
            outcome=Outcome.GRADED,
            temperature=1.0,
            patch=patch,
        )
        for number, text in enumerate(texts)
    ]


def _turn(text: str) -> Turn:
    message = Message(role="assistant", content=text)
    return Turn(context_ids=(1,), token_ids=(2,), logprobs=(-0.1,), version=0, message=message)
