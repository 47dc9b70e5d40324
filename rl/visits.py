"""How often each task was solved, step by step: kept in the journal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from palestra.rl.journal import Journal
from palestra.rl.types import Group

ESTIMATION = 0
"""The step number of the estimation pass."""


def record_visits(step: int, groups: Sequence[Group], journal: Journal) -> None:
    """Store solved and played episodes by task; the same step again replaces them."""
    solved: Counter[str] = Counter()
    played: Counter[str] = Counter()
    for group in groups:
        played[group.task_id] += len(group.trainable)
        solved[group.task_id] += sum(t.solved for t in group.trainable)
    visits = {task: [solved[task], number] for task, number in played.items() if number}
    journal.set_meta(f"visits/{step}", visits)


def success_rates(steps: range, journal: Journal) -> dict[str, float]:
    """Share of solved episodes by task over these steps; without the tasks that none of them
    played."""
    solved: Counter[str] = Counter()
    played: Counter[str] = Counter()
    for step in steps:
        visits: Any = journal.get_meta(f"visits/{step}", {})
        for task, (good, number) in visits.items():
            solved[task] += good
            played[task] += number
    return {task: solved[task] / number for task, number in played.items()}
