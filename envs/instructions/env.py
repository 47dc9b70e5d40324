"""The environment ``palestra/Instructions-v0``: texts that obey rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from palestra.envs.answer import Answer
from palestra.envs.instructions.requests import GENERATORS
from palestra.envs.puzzle import puzzle_tasks
from palestra.rl.types import Task


class Instructions(Answer):
    """Rules that code can check (Kimi K2 section 3.2.1), and nothing else about the text."""

    name: ClassVar[str] = "palestra/Instructions-v0"

    def tasks(self, seed: int) -> Sequence[Task]:
        """See ``puzzle_tasks``."""
        return puzzle_tasks(self.name, "instructions", GENERATORS, seed)
