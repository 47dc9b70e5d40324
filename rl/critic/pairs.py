"""Preference pairs from verified episodes: right and wrong ones of the same task."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, islice, zip_longest

from palestra.rl.types import Outcome, Trajectory


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two episodes of one task: the verifier passed one and failed the other."""

    right: Trajectory
    wrong: Trajectory

    @property
    def orders(self) -> tuple[tuple[Trajectory, Trajectory], tuple[Trajectory, Trajectory]]:
        """Both ways to show them: the right one first, the right one second."""
        return (self.right, self.wrong), (self.wrong, self.right)


def is_heldout(task_id: str, share: float, seed: int) -> bool:
    """Does the task belong to those that the critic is measured on and never trained on?"""
    return random.Random(f"{seed}/critic/{task_id}").random() < share


def pairs_of(played: Iterable[Trajectory], count: int, rng: random.Random) -> list[Pair]:
    """Up to ``count`` pairs of graded episodes, each episode in one at most; tasks take turns, in a
    random order, so that few pairs are of many tasks. The order of ``played`` does not matter."""
    by_task: dict[str, list[Trajectory]] = {}
    for trajectory in sorted(played, key=lambda t: t.id):
        if trajectory.verdict and trajectory.verdict.outcome is Outcome.GRADED:
            by_task.setdefault(trajectory.task_id, []).append(trajectory)
    tasks = [_paired(own, rng) for _, own in sorted(by_task.items())]
    rng.shuffle(tasks)
    turns = chain.from_iterable(zip_longest(*tasks))
    return list(islice((pair for pair in turns if pair is not None), count))


def _paired(siblings: Sequence[Trajectory], rng: random.Random) -> list[Pair]:
    right = [t for t in siblings if t.solved]
    wrong = [t for t in siblings if not t.solved]
    rng.shuffle(right)
    rng.shuffle(wrong)
    return [Pair(right=r, wrong=w) for r, w in zip(right, wrong, strict=False)]
