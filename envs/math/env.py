"""The environment ``palestra/Math-v0``: final answers, compared as numbers or expressions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from palestra.envs.answer import Answer
from palestra.envs.math.exercises import GENERATORS
from palestra.envs.puzzle import puzzle_tasks
from palestra.rl.types import Task


class Math(Answer):
    """Exercises of its own; ``math:PATH`` brings others (Kimi K2 section 3.2.1)."""

    name: ClassVar[str] = "palestra/Math-v0"

    def tasks(self, seed: int) -> Sequence[Task]:
        """See ``puzzle_tasks``."""
        return puzzle_tasks(self.name, "math", GENERATORS, seed)
