"""PARL (K2.5 report section 3): what an orchestrator of parallel sub-agents is rewarded for, and
its budget of critical steps.

    r_PARL(x, y) = lambda_1 * r_parallel + lambda_2 * r_finish + r_perf(x, y)

``r_parallel`` rewards starting sub-agents at all, against an orchestrator that does everything one
after the other; ``r_finish`` that they finish their sub-tasks, against starting them for nothing.
Both weights are annealed to zero, so in the end the outcome alone counts. The report publishes
neither the form of the two terms nor weights or schedules: those below are our defaults.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from palestra.rl.types import Reward


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Steps of the orchestrator, then those of each sub-agent that runs beside the others.

    Example: ``Stage(subs=(3, 5))`` takes 1 step, and then 5 while both sub-agents work.
    """

    main: int = 1
    subs: tuple[int, ...] = ()


def critical_steps(stages: Sequence[Stage]) -> int:
    """``sum_t ( S_main^(t) + max_i S_sub,i^(t) )``: the length of the longest chain of steps that
    wait for each other. The maximum over no sub-agents is 0."""
    return sum(map(_length, stages))


def stages_within(stages: Sequence[Stage], budget: int) -> int:
    """How many stages from the first on fit into ``budget`` critical steps: the episode stops
    before the next one."""
    return sum(spent <= budget for spent in accumulate(map(_length, stages)))


def parallel_reward(started: int, wanted: int) -> float:
    """Sub-agents started, as a share of ``wanted``, at most 1; 0 without any."""
    return min(1.0, started / wanted)


def finish_reward(finished: int, assigned: int) -> float:
    """Share of the assigned sub-tasks that were finished; 0 when none was assigned."""
    return finished / assigned if assigned else 0.0


def annealed(weight: float, step: int, steps: int) -> float:
    """``weight`` in step 1, on a straight line to exactly 0 in step ``steps`` and all after it."""
    return weight * (max(0, steps - step) / (steps - 1)) if steps > 1 else 0.0


def parl_reward(
    perf: float, *, parallel: float, finish: float, lambda_1: float, lambda_2: float
) -> Reward:
    """The three terms as one reward; its parts are unweighted."""
    return Reward(
        total=lambda_1 * parallel + lambda_2 * finish + perf,
        parts={"parallel": parallel, "finish": finish, "perf": perf},
    )


def _length(stage: Stage) -> int:
    return stage.main + max(stage.subs, default=0)
