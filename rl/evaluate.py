"""Evaluation: episodes that are graded and never trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from palestra.rl.config import EvalConfig
from palestra.rl.journal import EvalRow, Journal
from palestra.rl.types import LOST, Stop, Task, Trajectory
from palestra.rollout.episode import Ticket, World, play_all


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What one evaluation plays: ``samples`` episodes of each task, after ``step`` steps."""

    step: int
    split: str
    tasks: Sequence[Task]
    config: EvalConfig
    seed: int

    def tickets(self) -> list[Ticket]:
        """Seeds do not depend on ``step``: before and after differ by the weights alone."""
        return [
            Ticket(
                task=task,
                group_id=f"eval/{self.split}/{task.id}",
                sample=sample,
                step=self.step,
                seed=self.seed,
                temperature=self.config.temperature,
            )
            for task in self.tasks
            for sample in range(self.config.samples)
        ]

    def missing(self, journal: Journal) -> list[Ticket]:
        """The episodes that the journal lacks."""
        done = {(row.task_id, row.sample) for row in journal.evals(self.step, self.split)}
        return [t for t in self.tickets() if (t.task.id, t.sample) not in done]


async def evaluate(
    evaluation: Evaluation, world: World, journal: Journal, on_episode: Callable[[], None]
) -> None:
    """Play what the journal lacks of this evaluation and record it.

    Episodes lost to our machinery or to their task are left out, never counted as failures. What
    counts is the verdict, so one whose reward alone failed is not among them.
    """

    def finished(trajectory: Trajectory) -> None:
        on_episode()
        if trajectory.outcome in LOST and trajectory.stop is not Stop.REWARD_ERROR:
            return
        journal.add_eval(
            EvalRow(
                step=evaluation.step,
                split=evaluation.split,
                task_id=trajectory.task_id,
                sample=int(trajectory.id.rsplit("/", 1)[1]),
                solved=trajectory.solved,
            ),
            trajectory,
        )

    await play_all(evaluation.missing(journal), world, finished)
