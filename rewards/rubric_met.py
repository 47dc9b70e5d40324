"""A binary label by a judge, with a rubric of the task's own (Kimi K2 section 3.2.1, safety)."""

from __future__ import annotations

from palestra.rewards.faithfulness.reward import context_text
from palestra.rewards.judging.arbiter import Arbiter
from palestra.rewards.judging.questions import MEETS, check
from palestra.rewards.judging.quoting import shortened
from palestra.rewards.judging.responses import response_of
from palestra.rewards.judging.rubrics import Rubric
from palestra.rl.errors import Abstain
from palestra.rl.types import RewardFn, Sandbox, TaskOf, Trajectory

LABEL = "rubric"
"""The label of a task that holds its rubric."""


def rubric_met(*, arbiter: Arbiter, task_of: TaskOf, max_response_chars: int = 6000) -> RewardFn:
    """1.0 when a judge says that all replies meet the rubric in the task's labels, else 0.0.

    Abstains for a task without one, and raises as ``Arbiter.decide``.
    """

    async def met(trajectory: Trajectory, box: Sandbox | None) -> float:
        text = task_of(trajectory.task_id).labels.get(LABEL)
        if not text:
            raise Abstain(f"task {trajectory.task_id} has no rubric")
        question = check(
            shortened(context_text(trajectory), max_response_chars),
            response_of(trajectory, max_response_chars),
            [Rubric(id=LABEL, text=text)],
            step=trajectory.step,
            group_id=trajectory.group_id,
        )
        return float((await arbiter.decide(question)).choice == MEETS)

    return met
