"""Toggle's budgets: one per problem, estimated once, and kept in the journal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from palestra.rl.config import ToggleConfig
from palestra.rl.journal import Journal
from palestra.rl.toggle import correct_lengths, estimated_budget, phase_of
from palestra.rl.types import Group

KEY = "toggle/budget/"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemBudgets:
    """Generated tokens by problem, from the first group of it that was played (``limit_of`` a task
    id when nothing was correct in it). K2.5 estimates budgets once, when training begins; from
    which episodes is ours.

    The journal has the number from then on, so it is the same after a kill.
    """

    journal: Journal
    config: ToggleConfig
    limit_of: Callable[[str], int]

    def __call__(self, group: Group) -> float:
        """The budget of the group's problem; estimated and recorded when it has none yet."""
        key = KEY + group.task_id
        known = self.journal.get_meta(key)
        if isinstance(known, float):
            return known
        limit = self.limit_of(group.task_id)
        if not group.trainable:  # nothing was played: this was no visit
            return float(limit)
        lengths = correct_lengths(group.trajectories)
        budget = estimated_budget(lengths, self.config.percentile, limit)
        self.journal.set_meta(key, budget)
        return budget


def toggle_metrics(step: int, groups: Sequence[Group], budgets: ProblemBudgets) -> dict[str, float]:
    """The phase, the mean budget of the step's problems, and the share of episodes that are longer
    than their problem's budget, in both phases."""
    metrics = {"toggle/phase": float(phase_of(step, budgets.config.period))}
    played = [(budgets(group), group.trainable) for group in groups if group.trainable]
    if played:
        metrics["toggle/budget/mean"] = fmean(budget for budget, _ in played)
        metrics["toggle/over_budget_frac"] = fmean(
            t.generated > budget for budget, siblings in played for t in siblings
        )
    return metrics
