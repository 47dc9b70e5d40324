"""The environment ``palestra/Logic-v0``: the game of 24, sudokus, cryptarithms, tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from palestra.envs.answer import Answer
from palestra.envs.logic.cryptarithm import cryptarithm
from palestra.envs.logic.game24 import game24
from palestra.envs.logic.sudoku import sudoku
from palestra.envs.logic.tables import tables
from palestra.envs.puzzle import Generator, puzzle_tasks
from palestra.rl.types import Task

GENERATORS: Mapping[str, Generator] = {
    "game24": game24,
    "sudoku": sudoku,
    "cryptarithm": cryptarithm,
    "tables": tables,
}


class Logic(Answer):
    """Puzzles from easy to hard, of which any solution is right (Kimi K2 section 3.2.1)."""

    name: ClassVar[str] = "palestra/Logic-v0"

    def tasks(self, seed: int) -> Sequence[Task]:
        """See ``puzzle_tasks``."""
        return puzzle_tasks(self.name, "logic", GENERATORS, seed)
