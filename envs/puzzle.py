"""Questions that are made, not collected, and the tasks that they become."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import TypeAlias

from palestra.envs.answer import answer_task
from palestra.rl.types import Task


@dataclass(frozen=True, kw_only=True)
class Puzzle:
    """A question, the verifier that judges an answer with what it expects, and one right answer.

    Example: ``Puzzle(prompt="2 + 2?", verifier="numeric", expected="4", solution="4")``
    """

    prompt: str
    verifier: str
    expected: str
    solution: str


Generator: TypeAlias = Callable[[random.Random, int], Puzzle]
"""Makes a puzzle of a difficulty from 1 (easy) to 4; equal random states give equal puzzles."""

DIFFICULTIES = (1, 2, 3, 4)
EACH = 8
"""Tasks of a generator and a difficulty, a quarter of them held out; ours."""


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One task to be made: its id, its difficulty, its own random state, and its labels."""

    id: str
    difficulty: int
    random: random.Random
    labels: Mapping[str, str]


def slots(kind: str, name: str, seed: int) -> Iterator[Slot]:
    """The tasks of one generator at every difficulty, the same for the same seed.

    ``labels``: ``puzzle`` (the generator's name), ``difficulty``, and ``split``, which is ``train``
    or ``heldout``.
    """
    for difficulty, number in product(DIFFICULTIES, range(EACH)):
        identity = f"{kind}/{name}/{difficulty}/{number}"
        yield Slot(
            id=identity,
            difficulty=difficulty,
            random=random.Random(f"{seed}/{identity}"),
            labels={
                "puzzle": name,
                "difficulty": str(difficulty),
                "split": "heldout" if number % 4 == 3 else "train",
            },
        )


def puzzle_tasks(env: str, kind: str, generators: Mapping[str, Generator], seed: int) -> list[Task]:
    """Tasks of every generator and difficulty; see ``slots``."""
    return [
        _task(env, kind, generator(slot.random, slot.difficulty), slot)
        for name, generator in generators.items()
        for slot in slots(kind, name, seed)
    ]


def _task(env: str, kind: str, made: Puzzle, slot: Slot) -> Task:
    return answer_task(
        id=slot.id,
        env=env,
        kind=kind,
        prompt=made.prompt,
        verifier=made.verifier,
        expected=made.expected,
        reference=made.solution,
        labels=slot.labels,
    )
