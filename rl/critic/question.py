"""What the critic is asked about a pair whose answer is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from palestra.rewards.judging.questions import Question, comparison
from palestra.rewards.judging.responses import response_of, task_of
from palestra.rewards.judging.rubrics import Rubric
from palestra.rl.types import Trajectory


@dataclass(frozen=True)
class WhichIsRight:
    """The comparison that Loop A asks, by rubrics of its own: which of two episodes is better?

    ``limit`` is the most characters that are shown of the task and of each response.
    """

    rubrics: Sequence[Rubric]
    limit: int

    def __call__(self, first: Trajectory, second: Trajectory, step: int) -> Question:
        """Both are of one task; the question counts for ``step``."""
        return comparison(
            task_of(first, self.limit),
            response_of(first, self.limit),
            response_of(second, self.limit),
            self.rubrics,
            step=step,
            group_id=first.group_id,
        )
