"""Which tasks are drawn, which are left out, and when a step plays more of them."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from palestra.policies.fake import RecordingTrainer, ScriptedPolicy
from palestra.rl.config import SamplingConfig
from palestra.rl.errors import GraderError, UserError
from palestra.rl.estimate import chosen, with_chosen_tasks
from palestra.rl.journal import Journal
from palestra.rl.lost import TooManyInfraFailures
from palestra.rl.play import draw, grouped
from palestra.rl.problem_budgets import KEY
from palestra.rl.run import Run
from palestra.rl.sampling import epochs, hard, is_uniform, prioritized
from palestra.rl.step import rl_step
from palestra.rl.train import train
from palestra.rl.types import Sampling, Task, ToolCall, Trajectory, Verdict
from palestra.rl.visits import record_visits, success_rates
from palestra.rollout.dialects import DIALECTS

MakeRun = Callable[..., Run]


def tasks(count: int) -> list[Task]:
    return [
        Task(
            id=f"t{n}", source="", kind="", prompt="", files={}, reference={}, artifacts=(),
            hidden=(),
        )
        for n in range(count)
    ]  # fmt: skip


def ids(drawn: Any) -> list[str]:
    return [task.id for task in drawn]


def answer(word: str) -> str:
    return DIALECTS["hermes"].render(ToolCall(name="answer", arguments={"word": word}))


def number(context: str) -> int:
    """Which task this is: ``Guess 3.`` is in the prompt."""
    return int(context.partition("Guess ")[2].partition(".")[0])


def by_task(context: str, sampling: Sampling) -> str:
    """Tasks 0, 1 are always solved, 2 never, the others now and then."""
    task = number(context)
    right = {0: True, 1: True, 2: False}.get(task, sampling.seed % 3 == 0)
    return answer("yes" if right else "no")


def policy(run: Run) -> ScriptedPolicy:
    assert isinstance(run.world.policy, ScriptedPolicy)
    return run.world.policy


def trainer(run: Run) -> RecordingTrainer:
    assert isinstance(run.trainer, RecordingTrainer)
    return run.trainer


def test_the_default_draws_are_those_of_the_first_version(make_run: MakeRun) -> None:
    """A place of the endless sequence of epochs, shuffled by the run's seed and the epoch."""
    run = make_run(count=5, train_batch_size=3, n_samples_per_prompt=2)
    for step in (1, 2, 3, 7, 40):
        expected = []
        for place in range(3):
            epoch, index = divmod((step - 1) * 3 + place, 5)
            order = list(range(5))
            random.Random(f"7/tasks/{epoch}").shuffle(order)
            expected += [(f"{step:05d}/{place:04d}/{s:03d}", f"t{order[index]}") for s in (0, 1)]
        assert [(t.id, t.task.id) for t in draw(step, run)] == expected


@given(count=st.integers(1, 9), start=st.integers(0, 50), seed=st.integers(0, 3))
def test_epochs_go_on_where_they_were_left(count: int, start: int, seed: int) -> None:
    whole = ids(islice(epochs(tasks(count), seed, 0), start + 3 * count))
    assert ids(islice(epochs(tasks(count), seed, start), 3 * count)) == whole[start:]
    assert set(whole[:count]) == {f"t{n}" for n in range(count)}


def test_easy_to_hard_goes_by_the_pass_rate() -> None:
    rates = {"t0": 0.1, "t1": 0.9, "t2": 0.5, "t3": 0.5}  # t4 was never played
    first, second = (ids(islice(epochs(tasks(5), seed, 5, easy_first=rates), 5)) for seed in (0, 1))
    assert first[0] == second[0] == "t1" and first[3:] == second[3:] == ["t0", "t4"]
    assert {tuple(first[1:3]), tuple(second[1:3])} == {("t2", "t3"), ("t3", "t2")}


def test_only_hard_tasks_are_left_after_the_switch() -> None:
    rates = {"t0": 0.5, "t1": 0.49, "t2": 1.0}
    assert ids(hard(tasks(4), rates, 0.5)) == ["t1", "t3"]
    assert len(hard(tasks(1), {"t0": 1.0}, 0.5)) == 1, "better an easy task than none"


def test_prioritized_draws_are_proportional_to_one_minus_success() -> None:
    success = {"t0": 0.0, "t1": 0.25, "t2": 0.5, "t3": 0.75, "t4": 1.0}  # t5 was never played
    weights = {"t0": 1.0, "t1": 0.75, "t2": 0.5, "t3": 0.25, "t5": 1.0}
    draws = 20_000
    seen = Counter(ids(islice(prioritized(tasks(6), success, random.Random(3)), draws)))
    assert set(seen) == set(weights), "what always succeeds is never drawn"
    expected = {task: draws * weight / 3.5 for task, weight in weights.items()}
    chi_square = sum((seen[task] - e) ** 2 / e for task, e in expected.items())
    assert chi_square < 18.47  # 0.999 quantile at 4 degrees of freedom
    everything = islice(
        prioritized(tasks(3), dict.fromkeys(ids(tasks(3)), 1.0), random.Random(0)), 99
    )
    assert set(ids(everything)) == {"t0", "t1", "t2"}


def test_success_is_counted_over_all_earlier_steps(
    tmp_path: Path, make_trajectory: Callable[..., Trajectory]
) -> None:
    def played(group: str, *rewards: float | None) -> list[Any]:
        episodes = [
            make_trajectory(f"{group}/{i}", group=group, reward=r) for i, r in enumerate(rewards)
        ]
        return grouped(episodes)

    with Journal(tmp_path / "j") as journal:
        record_visits(0, [*played("a", 1.0, 0.0), *played("b", None)], journal)
        record_visits(2, [*played("a", 1.0, 1.0, None), *played("c", 0.0)], journal)
        assert success_rates(range(1), journal) == {"task-a": 0.5}
        assert success_rates(range(2), journal) == {"task-a": 0.5}
        assert success_rates(range(3), journal) == {"task-a": 0.75, "task-c": 0.0}


def test_prioritized_sampling_is_resumed_exactly(make_run: MakeRun, tmp_path: Path) -> None:
    def new(name: str) -> Run:
        run = make_run(script=by_task, sampling={"order": "prioritized"})
        return replace(run, journal=Journal(tmp_path / name))

    whole, first = new("whole"), new("parts")
    for step in (1, 2, 3, 4):
        asyncio.run(rl_step(step, whole))
    for step in (1, 2):
        asyncio.run(rl_step(step, first))
    second = new("parts")
    for step in (2, 3, 4):  # the second step is learned again
        asyncio.run(rl_step(step, second))
    assert trainer(second).batches == trainer(whole).batches[1:]
    assert len(policy(second).asked) == 2 * 12
    rates = success_rates(range(1, 4), whole.journal)
    drawn = {t.task.id for t in draw(4, whole)}
    assert drawn and all(rates.get(task, 0.0) < 1.0 for task in drawn)
    assert ids(t.task for t in draw(4, whole)) == ids(t.task for t in draw(4, second))


OVERSAMPLE = {"max_gen_batches": 3}


def test_more_tasks_are_played_until_the_batch_is_full(make_run: MakeRun) -> None:
    run = make_run(script=by_task, count=9, sampling=OVERSAMPLE)
    drawn: list[str] = []
    for step in (1, 2, 3):
        metrics = asyncio.run(rl_step(step, run))
        groups = grouped(run.journal.trajectories(step))
        drawn += [group.task_id for group in groups]
        useful = [group for group in groups if not is_uniform(group)]
        assert len(groups) == metrics["sampling/groups"] <= 9
        assert len(useful) == 3 or len(groups) == 9
        assert metrics["sampling/uniform_frac"] == pytest.approx(1 - len(useful) / len(groups))
        assert len(trainer(run).batches[-1].samples) == 4 * len(useful)
    assert len(drawn) > 9, "some groups taught nothing"
    assert len(set(drawn[:9])) == 9, "an epoch goes on where the last step left it"


def test_a_step_without_any_signal_plays_a_bounded_number_of_tasks(make_run: MakeRun) -> None:
    run = make_run(script=lambda *_: answer("no"), sampling=OVERSAMPLE)
    metrics = asyncio.run(rl_step(1, run))
    assert metrics["sampling/groups"] == 9.0 and metrics["sampling/uniform_frac"] == 1.0
    assert trainer(run).batches[0].samples == ()


class Crash(Exception):
    """The process dies here."""


@pytest.mark.parametrize("episodes", [2, 13, 18, 21, 22, 23])
def test_oversampling_is_resumed_without_playing_anything_twice(
    make_run: MakeRun, tmp_path: Path, episodes: int
) -> None:
    def new(name: str) -> Run:
        run = make_run(script=by_task, count=9, sampling=OVERSAMPLE)
        return replace(run, journal=Journal(tmp_path / name))

    whole = new("whole")
    asyncio.run(rl_step(1, whole))
    total = len(whole.journal.trajectories(1))
    assert total > 18, "this step has three rounds or more"

    left = [episodes]

    def on_episode() -> None:
        left[0] -= 1
        if left[0] <= 0:
            raise Crash

    with pytest.raises(ExceptionGroup):
        asyncio.run(rl_step(1, replace(new("broken"), on_episode=on_episode)))
    resumed = new("broken")
    done = len(resumed.journal.trajectories(1))
    assert episodes <= done < total
    asyncio.run(rl_step(1, resumed))
    assert len(policy(resumed).asked) == total - done
    assert trainer(resumed).batches == trainer(whole).batches
    assert resumed.journal.trajectories(1)[0].id == "00001/0000/000"


def announce(what: str, episodes: int) -> Callable[[], None]:
    return lambda: None


def with_chosen(run: Run) -> Run:
    return asyncio.run(with_chosen_tasks(run, announce))


def test_tasks_of_the_wrong_difficulty_are_left_out(make_run: MakeRun) -> None:
    bounds = {"estimate_samples": 8, "min_pass_rate": 0.1, "max_pass_rate": 0.9}
    run = make_run(script=by_task, count=6, sampling=bounds, toggle={"enable": True})
    kept = with_chosen(run)
    assert ids(kept.tasks) == ["t3", "t4", "t5"]
    assert len(policy(run).asked) == 48
    assert len(run.journal.trajectories(0)) == 48
    rates = success_rates(range(1), run.journal)
    assert rates["t0"] == 1.0 and rates["t2"] == 0.0 and 0 < rates["t3"] < 1
    solved = [t.generated for t in run.journal.trajectories(0) if t.task_id == "t0"]
    assert run.journal.get_meta(KEY + "t0") == float(solved[0]), "Toggle's budgets come from it"
    assert run.journal.get_meta(KEY + "t2") == 500.0
    again = make_run(script=by_task, count=6, sampling=bounds, toggle={"enable": True})
    assert ids(with_chosen(again).tasks) == ids(kept.tasks)
    assert policy(again).asked == [], "it is played once"
    assert asyncio.run(rl_step(1, kept))["sampling/tasks"] == 3.0
    assert {t.task_id for t in run.journal.trajectories(1)} <= {"t3", "t4", "t5"}
    assert run.journal.count_groups(before=2) == 3, "the pass is no step"


def thinks(context: str, sampling: Sampling) -> str:
    """Only task 0 can be answered at once; the others take thought."""
    return answer("yes") if number(context) == 0 else "hm " * 50 + answer("yes")


def test_a_task_that_can_be_guessed_is_left_out(make_run: MakeRun) -> None:
    run = make_run(script=thinks, count=3, sampling={"guesses": 2, "guess_tokens": 80})
    assert ids(with_chosen(run).tasks) == ["t1", "t2"]
    guesses = run.journal.trajectories(0)
    assert len(guesses) == 6 and max(t.generated for t in guesses) == 80
    assert {len(t.turns) for t in guesses} == {1}


def test_a_pass_that_was_cut_off_is_completed(make_run: MakeRun) -> None:
    settings = {"estimate_samples": 4, "max_pass_rate": 0.9}

    def dying(what: str, episodes: int) -> Callable[[], None]:
        left = [7]

        def on_episode() -> None:
            left[0] -= 1
            if not left[0]:
                raise Crash

        return on_episode

    broken = make_run(script=by_task, sampling=settings)
    with pytest.raises(ExceptionGroup):
        asyncio.run(with_chosen_tasks(broken, dying))
    done = len(broken.journal.trajectories(0))
    assert 7 <= done < 20
    resumed = make_run(script=by_task, sampling=settings)
    assert {"t0", "t1"}.isdisjoint(ids(with_chosen(resumed).tasks))
    assert len(policy(resumed).asked) == 20 - done


def test_nothing_left_is_one_line(make_run: MakeRun) -> None:
    run = make_run(
        script=lambda *_: answer("yes"), count=2, sampling={"guesses": 1, "guess_tokens": 90}
    )
    with pytest.raises(UserError, match=r"none of 2 tasks is left.*rl\.sampling\.guesses"):
        with_chosen(run)


def test_a_task_without_a_rate_stays() -> None:
    config = SamplingConfig(estimate_samples=1, min_pass_rate=0.5)
    assert ids(chosen(tasks(3), {"t0": 0.4, "t1": 0.5}, {"t9"}, config)) == ["t1", "t2"]


def test_infrastructure_failures_do_not_pass_for_difficulty(make_run: MakeRun) -> None:
    async def broken(task: Task, files: Any) -> Verdict:
        raise GraderError("the grading box broke")

    run = make_run(grader=broken, sampling={"estimate_samples": 2})
    with pytest.raises(TooManyInfraFailures, match="step 0: 100%"):
        with_chosen(run)
    assert run.journal.get_meta("estimated") is None


def test_the_pass_comes_before_the_first_step(make_run: MakeRun) -> None:
    run = make_run(script=by_task, steps=1, count=4, sampling={"estimate_samples": 2})
    said: list[Any] = []

    def on_eval(*given: Any) -> Callable[[], None]:
        said.append(given)
        return lambda: None

    asyncio.run(train(run, {}, lambda *_: None, on_eval))
    assert said == [(0, "training tasks (estimate)", 8)]
    assert [name for name, _ in trainer(run).calls] == ["publish", "learn", "save", "publish"]


@pytest.mark.parametrize(
    "settings",
    [
        {"order": "easy_to_hard"},
        {"hard_from_step": 24},
        {"max_pass_rate": 0.9},
        {"estimate_samples": 2, "min_pass_rate": 0.5, "max_pass_rate": 0.4},
    ],
)
def test_settings_that_need_the_pass_say_so(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=r"set estimate_samples|is above"):
        SamplingConfig.model_validate(settings)
