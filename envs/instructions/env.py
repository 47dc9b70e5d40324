"""The environment ``palestra/Instructions-v0``: texts that obey rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from palestra.envs.answer import Answer
from palestra.envs.instructions.requests import GENERATORS
from palestra.envs.puzzle import puzzle_tasks
from palestra.rewards.false_claim import false_claim
from palestra.rewards.score import Weighted
from palestra.rewards.tests_pass import tests_pass
from palestra.rl.types import Task


class Instructions(Answer):
    """Rules that code can check (Kimi K2 section 3.2.1), and nothing else about the text.

    A reply that claims to obey and does not is worth less than one that merely does not; by how
    much is our default.
    """

    name: ClassVar[str] = "palestra/Instructions-v0"
    rewards: ClassVar[Mapping[str, Weighted]] = {
        "tests_pass": Weighted(reward=tests_pass),
        "false_claim": Weighted(reward=false_claim, weight=-0.5),
    }

    def tasks(self, seed: int) -> Sequence[Task]:
        """See ``puzzle_tasks``."""
        return puzzle_tasks(self.name, "instructions", GENERATORS, seed)
