"""Numbers about records, under the names that the field uses; pure functions, no state.

Episodes without a reward count in ``infra/failure_frac`` or ``task/failure_frac`` and in ``stop/*``
only: our machinery failed them, or their task cannot be played.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev

from palestra.rl.journal import EvalRow
from palestra.rl.types import LOST, Outcome, Reward, Stop, Trajectory

Z95 = 1.959963984540054

CLIPPED = frozenset({Stop.OVER_BUDGET, Stop.CONTEXT_FULL})


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalScore:
    """Result of one split: the unbiased pass@1 over ``n`` tasks, and its 95 % interval.

    Example: ``EvalScore(pass_at_1=0.25, n=200, ci95=(0.195, 0.314))``
    """

    pass_at_1: float
    n: int
    ci95: tuple[float, float]


def rollout_metrics(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """What the episodes of one step were like; no entry for what cannot be known.

    Example: ``{"reward/mean": 0.5, "pass_rate": 0.5, "response_length/mean": 31.2, ...}``
    """
    if not trajectories:
        return {}
    played = [t for t in trajectories if t.outcome not in LOST]
    metrics = _reward_metrics(trajectories)
    if played:
        metrics.update(_abstained(played))
        metrics["pass_rate"] = fmean(t.solved for t in played)
        metrics["rollout/temperature"] = fmean(t.temperature for t in played)
        metrics.update(_length_metrics(played))
    for name, outcome in (("infra", Outcome.INFRA_FAILURE), ("task", Outcome.TASK_FAILURE)):
        metrics[f"{name}/failure_frac"] = fmean(t.outcome is outcome for t in trajectories)
    for stop in Stop:
        metrics[f"stop/{stop.value}"] = fmean(t.stop is stop for t in trajectories)
    return metrics


def _reward_metrics(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    rewards = [t.reward for t in trajectories if t.reward is not None]
    if not rewards:
        return {}
    totals = [reward.total for reward in rewards]
    parts = {f"reward/{name}/mean": fmean(values) for name, values in _parts(rewards).items()}
    return {
        "reward/mean": fmean(totals),
        "reward/std": pstdev(totals),
        **parts,
        "reward/zero_std_frac": zero_std_frac(trajectories),
    }


def _abstained(played: Sequence[Trajectory]) -> dict[str, float]:
    names = sorted({name for t in played for name in t.abstained})
    return {f"reward/{n}/abstained_frac": fmean(n in t.abstained for t in played) for n in names}


def _parts(rewards: Iterable[Reward]) -> dict[str, list[float]]:
    parts: dict[str, list[float]] = {}
    for reward in rewards:
        for name, value in reward.parts.items():
            parts.setdefault(name, []).append(value)
    return parts


def _length_metrics(played: Sequence[Trajectory]) -> dict[str, float]:
    lengths = [t.generated for t in played]
    turns = [turn for t in played for turn in t.turns]
    metrics = {
        "response_length/mean": fmean(lengths),
        "response_length/max": float(max(lengths)),
        "response_length/sum": float(sum(lengths)),
        "response_length/clip_ratio": fmean(t.stop in CLIPPED for t in played),
        "num_turns/mean": len(turns) / len(played),
    }
    if turns:
        metrics["tools/failure_rate"] = fmean(bool(turn.error) for turn in turns)
    return metrics


def cost_metrics(
    trajectories: Sequence[Trajectory], metrics: Mapping[str, float]
) -> dict[str, float]:
    """What a point of reward has cost in a step with these metrics: tokens that the policy
    generated and judges read and wrote, and seconds of the whole step. Rewards are those of
    ``reward/mean``; empty where they do not add up to anything above 0. The definition is ours.
    """
    points = sum(t.reward.total for t in trajectories if t.reward is not None)
    if points <= 0:
        return {}
    spent = ("perf/total_num_tokens", "judge/input_tokens", "judge/output_tokens")
    return {
        "cost/tokens_per_reward": sum(metrics.get(name, 0.0) for name in spent) / points,
        "cost/seconds_per_reward": metrics["timing_s/step"] / points,
    }


def zero_std_frac(trajectories: Iterable[Trajectory]) -> float:
    """Share of the groups with a reward whose rewards are all equal: they teach nothing."""
    totals: dict[str, set[float]] = {}
    for t in trajectories:
        if t.reward is not None:
            totals.setdefault(t.group_id, set()).add(t.reward.total)
    return fmean(len(values) == 1 for values in totals.values()) if totals else 0.0


def pass_at_k(n: int, c: int, k: int) -> float:
    """Unbiased chance that one of ``k`` samples passes, when ``c`` of ``n`` samples did.

    Example: ``pass_at_k(2, 1, 1) == 0.5``
    """
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"pass@{k} of {c} passes in {n} samples is not defined")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def wilson(successes: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a rate; nothing is known, (0, 1), when ``n`` is 0."""
    if n == 0:
        return (0.0, 1.0)
    rate, z2 = successes / n, Z95 * Z95
    middle = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(rate * (1 - rate) / n + z2 / (4 * n * n))
    return (max(0.0, middle - half), min(1.0, middle + half))


def eval_scores(rows: Iterable[EvalRow]) -> Mapping[str, EvalScore]:
    """pass@1 by split; give it the rows of one evaluation (``journal.evals(step)``).

    The interval takes tasks, not episodes, as independent: several samples of a task narrow it
    only through the mean.
    """
    solved: dict[str, dict[str, list[bool]]] = {}
    for row in rows:
        solved.setdefault(row.split, {}).setdefault(row.task_id, []).append(row.solved)
    scores: dict[str, EvalScore] = {}
    for split, tasks in solved.items():
        rate = fmean(pass_at_k(len(s), sum(s), 1) for s in tasks.values())
        ci95 = wilson(rate * len(tasks), len(tasks))
        scores[split] = EvalScore(pass_at_1=rate, n=len(tasks), ci95=ci95)
    return scores
