"""A training run: what is fixed over all of its steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from palestra.rl.config import RLConfig
from palestra.rl.critic.loop import Critic
from palestra.rl.journal import Journal
from palestra.rl.problem_budgets import ProblemBudgets
from palestra.rl.ptx import Source
from palestra.rl.types import Task, Trainer
from palestra.rollout.episode import World


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything that a step needs; built by ``deploy``."""

    config: RLConfig
    seed: int
    tasks: Sequence[Task]
    ptx: Sequence[Source]
    world: World
    trainer: Trainer
    journal: Journal
    checkpoints: Path
    critic: Critic | None = None
    on_episode: Callable[[], None] = lambda: None

    @cached_property
    def by_id(self) -> Mapping[str, Task]:
        """Every task by its id."""
        return {task.id: task for task in self.tasks}

    def limit_of(self, task_id: str) -> int:
        """Tokens that an episode of the task may generate."""
        return self.world.budget_of(self.by_id[task_id].kind)

    @cached_property
    def budgets(self) -> ProblemBudgets:
        """Toggle's budget of each problem."""
        return ProblemBudgets(
            journal=self.journal, config=self.config.toggle, limit_of=self.limit_of
        )
