"""A binary label by a judge, with a rubric of the task's own (Kimi K2 section 3.2.1, safety)."""

from __future__ import annotations

from palestra.rewards.faithfulness.reward import context_text
from palestra.rewards.judging.arbiter import Arbiter
from palestra.rewards.judging.questions import MEETS, check
from palestra.rewards.judging.quoting import shortened
from palestra.rewards.judging.responses import response_of
from palestra.rewards.judging.rubrics import Rubric
from palestra.rl.errors import Abstain
from palestra.rl.types import Sandbox, TaskOf, Trajectory

LABEL = "rubric"
"""The label of a task that holds its rubric."""


class RubricMet:
    """1.0 when a judge says that all replies meet the rubric in the task's labels, else 0.0.

    Implements ``rl.types.RewardFn``. Abstains for a task without a rubric, and raises as
    ``Arbiter.decide``.
    """

    def __init__(
        self, *, arbiter: Arbiter, task_of: TaskOf, max_response_chars: int = 6000
    ) -> None:
        self.arbiter = arbiter
        self._task_of = task_of
        self._limit = max_response_chars

    async def __call__(self, trajectory: Trajectory, box: Sandbox | None) -> float:
        """1.0 or 0.0."""
        text = self._task_of(trajectory.task_id).labels.get(LABEL)
        if not text:
            raise Abstain(f"task {trajectory.task_id} has no rubric")
        question = check(
            shortened(context_text(trajectory), self._limit),
            response_of(trajectory, self._limit),
            [Rubric(id=LABEL, text=text)],
            step=trajectory.step,
            group_id=trajectory.group_id,
        )
        return float((await self.arbiter.decide(question)).choice == MEETS)
