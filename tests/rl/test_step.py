"""One step and the loop around it: order, record, resume, and when not to learn."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from palestra.policies.fake import RecordingTrainer, ScriptedPolicy
from palestra.rl.advantage import samples
from palestra.rl.errors import GraderError, PathRefused, UserError
from palestra.rl.evaluate import Evaluation, evaluate
from palestra.rl.lost import TooManyInfraFailures
from palestra.rl.play import draw, grouped
from palestra.rl.presets import Rule
from palestra.rl.run import Run
from palestra.rl.step import draw_ptx, rl_step
from palestra.rl.train import train
from palestra.rl.types import Batch, Group, Outcome, Sample, Sampling, Sandbox, Stop, Task, Verdict

MakeRun = Callable[..., Run]


def step(number: int, run: Run) -> dict[str, float]:
    return asyncio.run(rl_step(number, run))


def trainer(run: Run) -> RecordingTrainer:
    assert isinstance(run.trainer, RecordingTrainer)
    return run.trainer


def policy(run: Run) -> ScriptedPolicy:
    assert isinstance(run.world.policy, ScriptedPolicy)
    return run.world.policy


def names(run: Run) -> list[Any]:
    """The trainer's calls with the batch's number in place of the batch."""
    return [(n, what.step if isinstance(what, Batch) else what) for n, what in trainer(run).calls]


def test_a_step_learns_saves_and_publishes_in_this_order(make_run: MakeRun) -> None:
    run = make_run()
    metrics = step(1, run)
    folder = str(run.checkpoints / "step-1")
    assert names(run) == [("learn", 1), ("save", folder), ("publish", 1)]
    assert run.journal.steps() == [(1, metrics)]
    assert metrics["actor/pg_loss"] == 0.5
    assert metrics["infra/failure_frac"] == 0.0
    played = run.journal.trajectories(1)
    assert [t.id for t in played] == sorted(t.id for t in draw(1, run))
    assert metrics["perf/total_num_tokens"] == sum(t.generated for t in played)
    rewards = {t.reward.total for t in played if t.reward}
    assert rewards == {0.0, 1.0}, "the script should win some and lose some"


def test_a_step_tells_what_became_of_its_boxes(make_run: MakeRun) -> None:
    run = make_run()
    world = replace(run.world, box_metrics=lambda: {"sandbox/leases": 8.0})
    assert step(1, replace(run, world=world))["sandbox/leases"] == 8.0


def test_the_batch_holds_exactly_the_samples_of_the_journal(make_run: MakeRun) -> None:
    run = make_run()
    step(1, run)
    expected = taught(grouped(run.journal.trajectories(1)))
    assert expected
    assert trainer(run).batches == [Batch(step=1, samples=tuple(expected))]


def taught(groups: Sequence[Group]) -> list[Sample]:
    return [sample for own in samples(groups, Rule()) for sample in own]


@pytest.mark.parametrize(("number", "saved"), [(1, False), (2, True), (3, False), (5, True)])
def test_checkpoints_come_every_few_steps_and_after_the_last(
    make_run: MakeRun, number: int, saved: bool
) -> None:
    run = make_run(steps=5, save_freq=2)
    step(number, run)
    assert [name for name, _ in names(run)] == ["learn", *["save"] * saved, "publish"]


def test_the_penalty_is_in_the_advantage_and_not_in_the_journal(make_run: MakeRun) -> None:
    # Wrong answers are of three lengths; this budget cuts the longer ones short.
    free, fined = make_run(tokens=53), make_run(tokens=53, budget={"penalty": 0.5})
    step(1, free)
    step(1, fined)
    assert policy(fined).asked == [], "both learn from the same episodes"
    played = run_ids(free)
    cut = [t for t in played if t.stop is Stop.OVER_BUDGET]
    assert cut and {t.reward.total for t in cut} == {0.0}
    assert trainer(fined).batches != trainer(free).batches
    expected = []
    for group in grouped(played):
        totals = [t.reward.total - 0.5 * (t in cut) for t in group.trajectories if t.reward]
        if max(totals) > min(totals):
            expected += [total - sum(totals) / len(totals) for total in totals]
    assert [max(s.advantages, key=abs) for s in trainer(fined).batches[0].samples] == expected


class Crash(Exception):
    """The process dies here."""


def crash_after(episodes: int) -> Callable[[], None]:
    left = [episodes]

    def on_episode() -> None:
        left[0] -= 1
        if left[0] <= 0:
            raise Crash

    return on_episode


@pytest.mark.parametrize(("episodes", "mini_batches"), [(1, 1), (5, 2), (9, 3)])
def test_a_resumed_step_plays_only_what_is_missing_and_learns_the_same(
    make_run: MakeRun, tmp_path: Path, episodes: int, mini_batches: int
) -> None:
    broken = replace(make_run(mini_batches=mini_batches), on_episode=crash_after(episodes))
    with pytest.raises(ExceptionGroup) as raised:
        step(1, broken)
    assert raised.group_contains(Crash)
    assert trainer(broken).calls == []
    done = {t.id for t in run_ids(broken)}
    assert episodes <= len(done) < 12

    resumed = make_run(mini_batches=mini_batches)
    step(1, resumed)
    assert len(policy(resumed).asked) == 12 - len(done)
    again = make_run(
        mini_batches=mini_batches
    )  # everything is in the journal: nothing is played, the step is learned again
    step(1, again)
    assert policy(again).asked == []

    whole = replace(
        make_run(mini_batches=mini_batches),
        journal=type(resumed.journal)(tmp_path / "other.sqlite"),
    )
    step(1, whole)
    assert len(policy(whole).asked) == 12
    assert trainer(resumed).batches == trainer(again).batches == trainer(whole).batches
    (batch,) = trainer(whole).batches
    assert batch.samples and len(batch.updates) == min(mini_batches, 3)


def run_ids(run: Run) -> list[Any]:
    return list(run.journal.trajectories(1))


def failing(share: set[str]) -> Callable[..., Any]:
    async def grade(task: Task, files: Mapping[str, bytes]) -> Verdict:
        if task.id in share:
            raise GraderError("the grading box broke")
        right = files.get("answer.txt") == b"yes"
        return Verdict(outcome=Outcome.GRADED, passed={"word": right})

    return grade


def test_too_many_infrastructure_failures_stop_before_learning(make_run: MakeRun) -> None:
    run = make_run(count=3, grader=failing({"t0"}))
    with pytest.raises(TooManyInfraFailures, match=r"step 1: 33% .*limit 20%.*box broke"):
        step(1, run)
    assert trainer(run).calls == []
    assert run.journal.steps() == []


def test_a_few_infrastructure_failures_are_left_out(make_run: MakeRun) -> None:
    run = make_run(count=3, grader=failing({"t0"}), max_infra_failures=0.5)
    metrics = step(1, run)
    assert metrics["infra/failure_frac"] == pytest.approx(1 / 3)
    lost = [t for t in run.journal.trajectories(1) if t.task_id == "t0"]
    assert {(t.outcome, t.reward) for t in lost} == {(Outcome.INFRA_FAILURE, None)}
    kept = [g for g in grouped(run.journal.trajectories(1)) if g.task_id != "t0"]
    expected = tuple(taught(kept))
    assert trainer(run).batches[0].samples == expected


def with_bad(run: Run, *bad: str) -> Run:
    """The run, with tasks that cannot be set up."""

    class Picky(type(run.world.env)):  # type: ignore[misc]
        async def setup(self, task: Task, box: Sandbox) -> None:
            if task.id in bad:
                raise PathRefused(f"{task.id}/../x: not a plain relative path")

    return replace(run, world=replace(run.world, env=Picky(run.world.env.run_checks)))


def test_a_task_that_cannot_be_played_is_left_out_and_counted(make_run: MakeRun) -> None:
    run = with_bad(make_run(count=3), "t0")
    metrics = step(1, run)
    assert metrics["task/failure_frac"] == metrics["stop/task_error"] == pytest.approx(1 / 3)
    assert metrics["infra/failure_frac"] == 0.0
    played = run.journal.trajectories(1)
    lost = [t for t in played if t.task_id == "t0"]
    assert {(t.outcome, t.reward) for t in lost} == {(Outcome.TASK_FAILURE, None)}
    rest = [g for g in grouped(played) if g.task_id != "t0"]
    assert trainer(run).batches[0].samples == tuple(taught(rest))
    rewards = [t.reward.total for t in played if t.reward]
    assert metrics["reward/mean"] == pytest.approx(sum(rewards) / len(rewards))
    again = with_bad(make_run(count=3), "t0")
    step(1, again)
    assert policy(again).asked == []
    assert trainer(again).batches == trainer(run).batches


def test_a_step_goes_on_with_the_one_task_that_can_be_played(make_run: MakeRun) -> None:
    run = with_bad(make_run(count=3), "t0", "t1")
    assert step(1, run)["task/failure_frac"] == pytest.approx(2 / 3)
    assert trainer(run).batches[0].samples


def test_one_bad_task_alone_in_its_step_does_not_end_the_run(make_run: MakeRun) -> None:
    run = with_bad(make_run(count=2, train_batch_size=1), "t0", "t1")
    assert step(1, run)["task/failure_frac"] == 1.0
    assert trainer(run).batches == [Batch(step=1, samples=())]


@pytest.mark.parametrize(("count", "size"), [(3, 3), (1, 1), (1, 4)])
def test_a_step_of_bad_tasks_alone_is_wrong_use(make_run: MakeRun, count: int, size: int) -> None:
    run = with_bad(make_run(count=count, train_batch_size=size), "t0", "t1", "t2")
    with pytest.raises(UserError, match=r"step 1: none of its tasks can be played: t0/\.\./x: not"):
        step(1, run)
    assert trainer(run).calls == []
    assert run.journal.trajectories(1) == [], "the same command may be tried with better tasks"


def test_drawing_is_deterministic_and_covers_every_task_once_per_epoch(make_run: MakeRun) -> None:
    run = make_run(count=5, train_batch_size=3, n_samples_per_prompt=2)
    tickets = [t for number in range(1, 11) for t in draw(number, run)]  # 30 places: 6 epochs
    assert tickets == [t for number in range(1, 11) for t in draw(number, run)]
    assert len({t.id for t in tickets}) == len(tickets) == 60
    assert len({t.turn_seed(0) for t in tickets}) == 60
    order = [t.task.id for t in tickets if t.sample == 0]
    epochs = [tuple(order[i : i + 5]) for i in range(0, 30, 5)]
    assert all(Counter(epoch) == Counter(f"t{n}" for n in range(5)) for epoch in epochs)
    assert len(set(epochs)) > 1, "epochs are shuffled anew"
    for ticket in tickets:
        siblings = [t for t in tickets if t.group_id == ticket.group_id]
        assert {t.task.id for t in siblings} == {ticket.task.id}
        assert sorted(t.sample for t in siblings) == [0, 1]
    assert draw(1, replace(run, seed=8)) != draw(1, run)


def test_supervised_samples_are_mixed_in_only_with_a_weight(
    make_run: MakeRun, make_source: Callable[..., Any]
) -> None:
    demos = [
        Sample(
            token_ids=(n, n),
            loss_mask=(False,) * 2,
            logprobs=(0.0,) * 2,
            advantages=(0.0,) * 2,
            ptx=(0.0, 1.0),
        )
        for n in range(9)
    ]
    off = replace(make_run(), ptx=[make_source(demos)])
    assert draw_ptx(1, off) == []
    on = replace(make_run(ptx={"coef": 0.1, "samples_per_step": 4}), ptx=[make_source(demos)])
    first = draw_ptx(1, on)
    assert first == draw_ptx(1, on) != draw_ptx(2, on)
    assert len(set(first)) == 4
    step(1, on)
    assert trainer(on).batches[0].samples[-4:] == tuple(first)
    few = make_run(ptx={"coef": 0.1, "samples_per_step": 100})
    assert len(draw_ptx(1, replace(few, ptx=[make_source(demos)]))) == 9


def run_loop(
    run: Run, heldout: Mapping[str, list[Task]] | None = None
) -> tuple[list[int], list[Any]]:
    done: list[int] = []
    evaluated: list[Any] = []

    def on_eval(number: int, split: str, episodes: int) -> Callable[[], None]:
        evaluated.append((number, split, episodes))
        return lambda: None

    asyncio.run(train(run, heldout or {}, lambda number, _: done.append(number), on_eval))
    return done, evaluated


def test_the_loop_goes_on_from_the_last_checkpoint(make_run: MakeRun) -> None:
    first = make_run(steps=3, save_freq=2)
    assert run_loop(first)[0] == [1, 2, 3]
    folder = first.checkpoints
    expected = [("publish", 0), ("learn", 1), ("publish", 1), ("learn", 2)]
    expected += [("save", str(folder / "step-2")), ("publish", 2), ("learn", 3)]
    expected += [("save", str(folder / "step-3")), ("publish", 3)]
    assert names(first) == expected

    (folder / "step-3").rmdir()  # as if the machine had died before it was written
    second = make_run(steps=4)
    assert run_loop(second)[0] == [3, 4]
    assert names(second)[:3] == [("load", str(folder / "step-2")), ("publish", 2), ("learn", 3)]
    assert trainer(second).batches[0] == trainer(first).batches[2]
    assert len(policy(second).asked) == 12, "step 3 comes from the journal, step 4 is played"
    assert [number for number, _ in second.journal.steps()] == [1, 2, 3, 4]


def test_a_run_goes_on_from_a_checkpoint_that_was_being_replaced(make_run: MakeRun) -> None:
    first = make_run(steps=2)
    run_loop(first)
    last = first.checkpoints / "step-2"
    last.rename(last.with_name("step-2.old"))
    second = make_run(steps=3)
    assert run_loop(second)[0] == [3]
    assert names(second)[0] == ("load", str(last))


def test_evaluation_before_after_and_between(make_run: MakeRun) -> None:
    run = make_run(steps=3, eval={"freq": 1, "limit": 2, "samples": 2})
    heldout = {"a": list(run.tasks), "b": list(run.tasks[:1])}
    _, evaluated = run_loop(run, heldout)
    both = [("a", 4), ("b", 2)]
    assert evaluated == [
        *((0, *split) for split in both),
        (1, "a", 4),
        (2, "a", 4),
        *((3, *split) for split in both),
    ]
    rows = run.journal.evals(split="a")
    assert len(rows) == 4 * 4
    assert len({row.task_id for row in rows}) == 2, "the same tasks at every step"
    solved = {row.step: [] for row in rows}
    for row in rows:
        solved[row.step].append((row.task_id, row.sample, row.solved))
    assert solved[0] == solved[3], "the same policy, so the same result: seeds are fixed"
    again = make_run(steps=3, eval={"freq": 1, "limit": 2, "samples": 2})
    _, evaluated = run_loop(again, heldout)
    assert evaluated == [], "done once, nothing is begun again"
    assert policy(again).asked == []
    # Evaluated episodes are never trained on.
    ids = {t.id for n in (1, 2, 3) for t in run.journal.trajectories(n)}
    assert not any("eval" in name for name in ids)


def cut_off(run: Run, heldout: Mapping[str, list[Task]], at: int, episodes: int) -> None:
    """The run dies in the evaluation after ``at`` steps, when ``episodes`` are done."""

    def on_eval(number: int, split: str, _: int) -> Callable[[], None]:
        return crash_after(episodes + 1) if number == at else lambda: None

    with pytest.raises(ExceptionGroup) as raised:
        asyncio.run(train(run, heldout, lambda *_: None, on_eval))
    assert raised.group_contains(Crash)


@pytest.mark.parametrize("save_freq", [1, 2])
@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_an_evaluation_that_was_cut_off_is_completed_before_the_run_goes_on(
    make_run: MakeRun, tmp_path: Path, at: int, save_freq: int
) -> None:
    settings = {"steps": 3, "save_freq": save_freq, "eval": {"freq": 1, "limit": 4, "samples": 2}}
    whole = replace(
        make_run(**settings),
        journal=type(make_run().journal)(tmp_path / "whole.sqlite"),
        checkpoints=tmp_path / "whole",
    )
    heldout = {"a": list(whole.tasks)}
    run_loop(whole, heldout)

    broken = make_run(**settings)
    cut_off(broken, heldout, at, 3)
    kept = broken.journal.evals(at, "a")
    assert 3 <= len(kept) < 8
    resumed = make_run(**settings)
    _, evaluated = run_loop(resumed, heldout)
    left = [(number, "a", 8) for number in range(at + 1, 4)]
    assert evaluated == [(at, "a", 8 - len(kept)), *left]
    assert resumed.journal.evals() == whole.journal.evals()
    published = [what for name, what in trainer(resumed).calls if name == "publish"]
    assert published == list(range(at - at % save_freq if at < 3 else 3, 4))


def test_evaluation_in_between_without_held_out_tasks(make_run: MakeRun) -> None:
    run = make_run(steps=2, eval={"freq": 1})
    assert run_loop(run) == ([1, 2], [])


def test_an_evaluation_plays_what_is_missing_and_skips_our_failures(make_run: MakeRun) -> None:
    run = make_run(count=4, grader=failing({"t1"}))
    evaluation = Evaluation(step=0, split="s", tasks=run.tasks, config=run.config.eval, seed=1)

    def play(on: Run) -> None:
        asyncio.run(evaluate(evaluation, on.world, on.journal, lambda: None))

    play(run)
    assert {row.task_id for row in run.journal.evals(0, "s")} == {"t0", "t2", "t3"}
    again = make_run(count=4)
    play(again)
    assert len(policy(again).asked) == 1
    assert {row.task_id for row in run.journal.evals(0, "s")} == {"t0", "t1", "t2", "t3"}


def test_an_evaluation_leaves_out_tasks_that_cannot_be_played(make_run: MakeRun) -> None:
    run = with_bad(make_run(count=3), "t1")
    evaluation = Evaluation(step=0, split="s", tasks=run.tasks, config=run.config.eval, seed=1)
    asyncio.run(evaluate(evaluation, run.world, run.journal, lambda: None))
    assert {row.task_id for row in run.journal.evals(0, "s")} == {"t0", "t2"}


def test_one_reply_per_episode_was_asked_with_its_own_seed(make_run: MakeRun) -> None:
    seeds: list[int] = []

    def script(context: str, sampling: Sampling) -> str:
        seeds.append(sampling.seed)
        assert (sampling.temperature, sampling.stop_ids) == (0.5, (128,))
        return "no call at all"

    run = make_run(script=script, temperature=0.5)
    step(1, run)
    assert len(seeds) == len(set(seeds)) == 24
    assert {t.temperature for t in run.journal.trajectories(1)} == {0.5}
