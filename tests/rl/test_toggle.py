"""Toggle: the phases, the indicator of equation 2, the percentile, and budgets that stay."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palestra.rl.config import ToggleConfig
from palestra.rl.estimate import with_chosen_tasks
from palestra.rl.journal import Journal
from palestra.rl.problem_budgets import KEY, ProblemBudgets, toggle_metrics
from palestra.rl.run import Run
from palestra.rl.step import rl_step
from palestra.rl.toggle import (
    correct_lengths,
    estimated_budget,
    limited,
    percentile,
    phase_of,
)
from palestra.rl.types import Group, Json, Sampling, ToolCall, Trajectory, Turn
from palestra.rl.visits import ESTIMATION
from palestra.rollout.dialects import DIALECTS

Make = Callable[..., Trajectory]
MakeRun = Callable[..., Run]


@pytest.fixture
def episode(make_trajectory: Make, make_turn: Callable[..., Turn]) -> Make:
    def make(length: int, reward: float | None = 1.0, name: str = "a") -> Trajectory:
        reply = replace(make_turn(), token_ids=(5,) * length, logprobs=(-0.1,) * length)
        return make_trajectory(name, reward=reward, turns=(reply,))

    return make


def test_phases_alternate_and_begin_limited() -> None:
    assert [phase_of(step, 1) for step in range(1, 6)] == [0, 1, 0, 1, 0]
    assert [phase_of(step, 3) for step in range(1, 10)] == [0, 0, 0, 1, 1, 1, 0, 0, 0]


@pytest.mark.parametrize(
    ("accurate", "short", "kept"),
    [(False, True, True), (False, False, True), (True, True, True), (True, False, False)],
)
@pytest.mark.parametrize("reward", [1.0, 0.5, -0.5, 0.0])
def test_the_truth_table_of_equation_2(
    episode: Make, accurate: bool, short: bool, kept: bool, reward: float
) -> None:
    """r is kept when the mean accuracy is below lambda, or the length within the budget."""
    one = episode(10 if short else 11, reward)
    others = [episode(1, 1.0 if accurate else 0.0, name) for name in "bcd"]
    found = limited([one, *others], [reward, 0.1, 0.2, 0.3], 10.0, 0.5)
    assert found == [reward if kept else 0.0, 0.1, 0.2, 0.3]


def test_the_bounds_of_the_table_count_as_within(episode: Make) -> None:
    """Accuracy of exactly lambda is limited, a length of exactly the budget is allowed."""
    siblings = [episode(10), episode(11, 0.0), episode(11), episode(1, 0.0)]
    rewards = [1.0, 0.0, 1.0, 0.0]
    assert limited(siblings, rewards, 10.0, 0.5) == [1.0, 0.0, 0.0, 0.0]
    assert limited(siblings, rewards, 10.0, 0.51) == rewards
    assert limited([], [], 10.0, 0.0) == []


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=20), st.floats(0, 100))
def test_the_percentile_is_numpys_default(values: list[int], rho: float) -> None:
    expected = float(np.percentile(values, rho))
    assert percentile(values, rho) == pytest.approx(expected, rel=1e-12, abs=1e-9)


def test_budgets_come_from_correct_episodes_only(episode: Make) -> None:
    played = [episode(10), episode(99, 0.0), episode(20), episode(50, None), episode(40)]
    assert correct_lengths(played) == [10, 20, 40]
    assert estimated_budget([10, 20, 40], 50, 128) == 20.0
    assert estimated_budget([10, 20, 40], 75, 128) == 30.0
    assert estimated_budget([], 50, 128) == 128.0


@pytest.fixture
def budgets(tmp_path: Path) -> ProblemBudgets:
    return ProblemBudgets(
        journal=Journal(tmp_path / "j"), config=ToggleConfig(enable=True), limit_of=lambda _: 128
    )


def test_a_budget_is_estimated_once(episode: Make, budgets: ProblemBudgets) -> None:
    def of(task: str, *trajectories: Trajectory) -> Group:
        return Group(id="g", task_id=task, trajectories=trajectories)

    assert budgets(of("x", episode(1, None))) == 128.0, "nothing was played: no visit"
    assert budgets(of("x", episode(10), episode(20))) == 15.0
    assert budgets(of("x", episode(2), episode(2))) == 15.0
    assert budgets(of("y", episode(7, 0.0))) == 128.0
    assert budgets(of("y", episode(7))) == 128.0
    metrics = toggle_metrics(6, [of("x", episode(15), episode(16)), of("y")], budgets)
    assert metrics == {
        "toggle/phase": 1.0,
        "toggle/budget/mean": 15.0,
        "toggle/over_budget_frac": 0.5,
    }


def thinks(context: str, sampling: Sampling) -> str:
    """Right or wrong by the seed, after some thought whose length the seed says, too."""
    word = "yes" if sampling.seed % 3 else "no"
    call = DIALECTS["hermes"].render(ToolCall(name="answer", arguments={"word": word}))
    return "x" * (sampling.seed // 3 % 40) + call


TOGGLE = {"enable": True, "period": 1, "min_accuracy": 0.3}


def stored(journal: Journal) -> dict[str, object]:
    return {f"t{n}": journal.get_meta(f"{KEY}t{n}") for n in range(5)}


def steps(run: Run, *numbers: int) -> list[dict[str, float]]:
    return [asyncio.run(rl_step(number, run)) for number in numbers]


class Doomed(Journal):
    """The process dies by SIGKILL after ``writes`` records of episodes, budgets and the like."""

    def __init__(self, path: Path, writes: int) -> None:
        self.writes = writes
        super().__init__(path)

    def add_trajectory(self, trajectory: Trajectory) -> None:
        super().add_trajectory(trajectory)
        self.count()

    def set_meta(self, key: str, value: Json) -> None:
        super().set_meta(key, value)
        self.count()

    def count(self) -> None:
        self.writes -= 1
        if not self.writes:
            os.kill(os.getpid(), signal.SIGKILL)


def estimated(journal: Journal) -> dict[str, object]:
    """The budgets that the estimation pass gives."""
    played = journal.trajectories(ESTIMATION)
    lengths = {
        name: correct_lengths([t for t in played if t.task_id == name]) for name in stored(journal)
    }
    return {name: estimated_budget(own, 50, 500) for name, own in lengths.items()}


# Step 1 plays 3 tasks 4 times: 12 episodes, then 3 budgets. The pass plays 5: 20, then 5.
@pytest.mark.parametrize(
    ("estimate_samples", "writes", "known"),
    [(0, 5, 0), (0, 14, 2), (0, 24, 3), (4, 7, 0), (4, 22, 2), (4, 34, 5)],
)
def test_budgets_are_the_same_after_a_kill(
    make_run: MakeRun, tmp_path: Path, estimate_samples: int, writes: int, known: int
) -> None:
    def new(journal: Journal) -> Run:
        sampling = {"estimate_samples": estimate_samples}
        return replace(make_run(script=thinks, toggle=TOGGLE, sampling=sampling), journal=journal)

    def play(run: Run) -> list[dict[str, float]]:
        return steps(asyncio.run(with_chosen_tasks(run, lambda *_: lambda: None)), 1, 2, 3)

    whole = new(Journal(tmp_path / "whole"))
    metrics = play(whole)
    assert [m["toggle/phase"] for m in metrics] == [0.0, 1.0, 0.0]

    child = multiprocessing.get_context("fork").Process(
        target=lambda: play(new(Doomed(tmp_path / "killed", writes)))
    )
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    with Journal(tmp_path / "killed") as journal:
        before = {name: budget for name, budget in stored(journal).items() if budget}
    assert len(before) == known
    resumed = new(Journal(tmp_path / "killed"))
    play(resumed)
    budgets = stored(whole.journal)
    assert stored(resumed.journal) == budgets
    assert before.items() <= budgets.items()
    assert len(set(budgets.values())) > 2, "budgets differ by problem"
    assert (budgets == estimated(whole.journal)) == (estimate_samples > 0)
    assert resumed.trainer.batches == whole.trainer.batches  # type: ignore[attr-defined]
    assert resumed.journal.shaped(1) == whole.journal.shaped(1) != {}
    assert whole.journal.shaped(2) == {}, "the second phase is free"


def test_a_limited_phase_teaches_another_lesson_than_a_free_one(make_run: MakeRun) -> None:
    """The journal keeps raw trajectories, and beside them what the step learned from."""
    run = make_run(script=thinks, toggle=TOGGLE)
    (metrics,) = steps(run, 1)
    rewards = run.journal.shaped(1)
    raw = {t.id: t for t in run.journal.trajectories(1)}
    assert rewards
    for name, reward in rewards.items():
        assert raw[name].solved and raw[name].reward is not None
        assert (raw[name].reward.total, raw[name].reward.shaping) == (1.0, {})
        assert (reward.total, reward.parts, reward.shaping) == (
            0.0,
            {"tests_pass": 1.0},
            {"toggle": -1.0},
        )
        budget = run.journal.get_meta(KEY + raw[name].task_id)
        assert isinstance(budget, float) and raw[name].generated > budget
    share = len(rewards) / len(raw)
    assert metrics["shaping/toggle/mean"] == pytest.approx(-share)
    assert metrics["toggle/over_budget_frac"] >= share
    assert metrics["reward/mean"] == pytest.approx(
        sum(t.reward.total for t in raw.values() if t.reward) / len(raw)
    )
