"""Metrics: the arithmetic, and what counts where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from statistics import fmean

import pytest

from palestra.rl.journal import EvalRow
from palestra.rl.metrics import cost_metrics, eval_scores, pass_at_k, rollout_metrics, wilson
from palestra.rl.types import Outcome, Stop, Trajectory, Turn

Make = Callable[..., Trajectory]


@pytest.mark.parametrize("n", range(1, 8))
def test_pass_at_k_is_the_share_of_subsets_with_a_pass(n: int) -> None:
    for c in range(n + 1):
        outcomes = [True] * c + [False] * (n - c)
        for k in range(1, n + 1):
            brute = fmean(any(subset) for subset in combinations(outcomes, k))
            assert pass_at_k(n, c, k) == pytest.approx(brute, abs=1e-12)


@pytest.mark.parametrize(("n", "c", "k"), [(3, 4, 1), (3, -1, 1), (3, 1, 4), (3, 1, 0)])
def test_pass_at_k_refuses_nonsense(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match="not defined"):
        pass_at_k(n, c, k)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (5, 10, 0.2366, 0.7634),
        (10, 10, 0.7225, 1.0),
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, table I
        (15, 148, 0.0624, 0.1605),  # Newcombe 1998, table I
        (1, 29, 0.0061, 0.1718),  # Newcombe 1998, table I
        (0, 0, 0.0, 1.0),
    ],
)
def test_wilson(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n) == pytest.approx((low, high), abs=6e-5)


def test_rollout_metrics_of_a_small_step(
    make_trajectory: Make, make_turn: Callable[..., Turn]
) -> None:
    bad = make_turn(error="no such tool")
    metrics = rollout_metrics(
        [
            make_trajectory("a", group="g", reward=1.0),
            make_trajectory("b", group="g", reward=0.0, stop=Stop.OVER_BUDGET, turns=(bad, bad)),
            make_trajectory("c", group="h", reward=0.0, stop=Stop.CONTEXT_FULL),
            make_trajectory("d", group="h", reward=None, stop=Stop.INFRA_ERROR),
            replace(
                make_trajectory("e", group="i", reward=None, stop=Stop.TASK_ERROR, turns=()),
                outcome=Outcome.TASK_FAILURE,
            ),
        ]
    )
    assert metrics["reward/mean"] == pytest.approx(1 / 3)
    assert metrics["reward/std"] == pytest.approx(2**0.5 / 3)
    assert metrics["reward/tests_pass/mean"] == pytest.approx(1 / 3)
    assert metrics["reward/zero_std_frac"] == 0.5
    assert metrics["pass_rate"] == pytest.approx(1 / 3)
    assert metrics["rollout/temperature"] == 1.0
    assert metrics["response_length/mean"] == 4.0
    assert metrics["response_length/max"] == 6.0
    assert metrics["response_length/sum"] == 12.0
    assert metrics["response_length/clip_ratio"] == pytest.approx(2 / 3)
    assert metrics["num_turns/mean"] == pytest.approx(4 / 3)
    assert metrics["tools/failure_rate"] == 0.5
    assert metrics["infra/failure_frac"] == metrics["task/failure_frac"] == 0.2
    stops = {name: value for name, value in metrics.items() if name.startswith("stop/")}
    assert set(stops) == {f"stop/{stop.value}" for stop in Stop}
    assert sum(stops.values()) == pytest.approx(1.0)
    assert stops["stop/infra_error"] == stops["stop/task_error"] == 0.2


def test_a_point_of_reward_costs_what_policy_and_judges_have_taken(make_trajectory: Make) -> None:
    metrics = {
        "perf/total_num_tokens": 100.0,
        "judge/input_tokens": 40.0,
        "judge/output_tokens": 10.0,
        "timing_s/step": 12.0,
    }
    rewards = (1.0, 0.5, None, -0.3)
    played = [make_trajectory(str(n), reward=r) for n, r in enumerate(rewards)]
    assert cost_metrics(played, metrics) == pytest.approx(
        {"cost/tokens_per_reward": 125.0, "cost/seconds_per_reward": 10.0}
    )
    assert cost_metrics([make_trajectory(reward=0.0)], metrics) == {}
    assert cost_metrics([make_trajectory(reward=-1.0), *played[1:3]], metrics) == {}


def test_rollout_metrics_without_anything_graded(make_trajectory: Make) -> None:
    assert rollout_metrics([]) == {}
    metrics = rollout_metrics([make_trajectory(reward=None, stop=Stop.INFRA_ERROR)])
    assert metrics["infra/failure_frac"] == 1.0
    assert "reward/mean" not in metrics and "pass_rate" not in metrics


def test_eval_scores_count_tasks_not_episodes() -> None:
    rows = [
        EvalRow(step=0, split="s", task_id=task, sample=sample, solved=solved)
        for task, results in (("x", (True, False)), ("y", (True, True)))
        for sample, solved in enumerate(results)
    ]
    score = eval_scores(rows)["s"]
    assert (score.pass_at_1, score.n) == (0.75, 2)
    assert score.ci95 == wilson(1.5, 2)
