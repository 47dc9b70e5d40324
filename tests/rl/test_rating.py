"""Rewards of groups in a run: siblings are rated once, before anything is learned from them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from itertools import repeat
from typing import Any

import pytest

from palestra.policies.fake import RecordingTrainer
from palestra.rewards.compose import gated
from palestra.rewards.registry import REWARDS
from palestra.rewards.score import Scheme, Weighted, rate, score
from palestra.rl.config import EvalConfig
from palestra.rl.errors import Abstain, InfraError, UserError
from palestra.rl.evaluate import Evaluation, evaluate
from palestra.rl.lost import TooManyInfraFailures
from palestra.rl.run import Run
from palestra.rl.step import rl_step
from palestra.rl.types import Batch, Outcome, Reward, Sandbox, Stop, Trajectory

MakeRun = Callable[..., Run]
SOLVED: Any = REWARDS.find("tests_pass")


class Ranks:
    """Counts its groups; the first sibling is worth most."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []

    async def __call__(self, trajectories: list[Trajectory]) -> list[Reward]:
        self.groups.append([t.id for t in trajectories])
        return [
            Reward(total=1.0 / place, parts={"place": float(place)})
            for place, _ in enumerate(trajectories, 1)
        ]


def rated_by(run: Run, reward: Any, **more: Any) -> Run:
    parts = {"solved": Weighted(reward=SOLVED), "ranks": Weighted(reward=reward, weight=0.1)}
    return replace(run, world=replace(run.world, scheme=Scheme(parts | more)))


def step(run: Run) -> dict[str, float]:
    return asyncio.run(rl_step(1, run))


def test_each_group_is_rated_once_before_it_is_learned_from(make_run: MakeRun) -> None:
    ranks = Ranks()
    run = rated_by(make_run(), ranks)
    metrics = step(run)
    assert metrics["timing_s/reward"] > 0
    assert sorted(ids[0] for ids in ranks.groups) == [f"00001/000{n}/000" for n in range(3)]
    assert all(len(ids) == 4 for ids in ranks.groups)
    played = run.journal.trajectories(1)
    for t in played:
        assert t.reward is not None and set(t.reward.parts) == {"solved", "ranks", "ranks/place"}
        assert t.reward.total == pytest.approx(t.solved + 0.1 * t.reward.parts["ranks"])
        assert t.reward.provenance["ranks"].verifier == "Ranks"
    assert metrics["reward/ranks/mean"] == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    # All siblings differ, so every one of them is learned from.
    (batch,) = [b for _, b in run.trainer.calls if isinstance(b, Batch)]  # type: ignore[attr-defined]
    assert len(batch.samples) == 12


def test_what_a_rating_that_was_broken_off_has_left_is_forgotten(
    make_trajectory: Callable[..., Trajectory],
) -> None:
    answers: list[Any] = [[Reward(total=v, parts={"p": v}) for v in (0.25, 0.5)], None]

    async def ranks(trajectories: list[Trajectory]) -> list[Reward]:
        said: list[Reward] | None = answers.pop(0)
        if said is None:
            raise Abstain("spent")
        return said

    scheme = Scheme({"solved": Weighted(reward=SOLVED), "ranks": Weighted(reward=ranks)})
    group = [asyncio.run(score(make_trajectory(n), None, scheme)) for n in ("a", "b")]
    [first, _] = asyncio.run(rate(group, scheme))
    again = asyncio.run(rate([first, group[1]], scheme))
    for t in again:
        assert t.reward is not None and t.reward.parts == {"solved": 1.0}
        assert t.reward.total == 1.0 and set(t.reward.provenance) == {"solved"}
        assert t.abstained == {"ranks": "spent"}
    answers.append([Reward(total=v, parts={}) for v in (0.75, 1.0)])
    rated = asyncio.run(rate(again, scheme))
    assert [t.abstained for t in rated] == [{}, {}]
    assert [t.reward.parts["ranks"] for t in rated if t.reward] == [0.75, 1.0]


def test_a_killed_run_rates_what_was_not_rated_and_plays_nothing_again(
    make_run: MakeRun,
) -> None:
    class Power(BaseException):
        """The end of a process."""

    class Once(Ranks):
        async def __call__(self, trajectories: list[Trajectory]) -> list[Reward]:
            if len(self.groups) == 2:
                raise Power
            return await super().__call__(trajectories)

    first, again = Once(), Ranks()
    with pytest.raises(BaseExceptionGroup) as killed:
        step(rated_by(make_run(), first))
    assert killed.value.subgroup(Power)
    before = {t.id: t for t in make_run().journal.trajectories(1)}
    run = rated_by(make_run(script=repeat("never asked")), again)
    step(run)
    after = {t.id: t for t in run.journal.trajectories(1)}
    assert len(first.groups) == 2 and len(again.groups) == 1
    assert not set(again.groups[0]) & {name for ids in first.groups for name in ids}
    assert after.keys() == before.keys()
    assert all(after[i].turns == before[i].turns for i in before)
    assert all(t.reward and "ranks" in t.reward.parts for t in after.values())


def test_a_group_that_cannot_be_rated_is_lost_with_the_reason(make_run: MakeRun) -> None:
    async def fails(trajectories: list[Trajectory]) -> list[Reward]:
        if trajectories[0].group_id == "00001/0001":
            raise UserError("the judge is gone")
        return await Ranks()(trajectories)

    with pytest.raises(TooManyInfraFailures, match="the judge is gone"):
        step(rated_by(make_run(), fails))
    run = rated_by(make_run(max_infra_failures=0.5), fails)
    metrics = step(run)
    assert metrics["stop/reward_error"] == metrics["infra/failure_frac"] == pytest.approx(1 / 3)
    lost = run.journal.group("00001/0001")
    assert [(t.outcome, t.stop, t.reward) for t in lost] == [
        (Outcome.INFRA_FAILURE, Stop.REWARD_ERROR, None)
    ] * 4
    assert {t.reason for t in lost} == {"the judge is gone"} and all(t.turns for t in lost)


def test_what_every_reward_is_silent_about_is_neither_learned_from_nor_lost(
    make_run: MakeRun,
) -> None:
    async def silent(trajectory: Trajectory, box: Sandbox | None) -> float:
        if trajectory.id.endswith("/000"):
            raise Abstain("no opinion")
        return float(trajectory.solved)

    run = make_run()
    scheme = Scheme({"silent": Weighted(reward=silent)})
    run = replace(run, world=replace(run.world, scheme=scheme))
    metrics = step(run)
    played = run.journal.trajectories(1)
    without = [t for t in played if t.reward is None]
    assert [t.id[-3:] for t in without] == ["000"] * 3
    assert {t.abstained["silent"] for t in without} == {"no opinion"}
    assert {t.outcome for t in played} == {Outcome.GRADED}
    assert metrics["reward/silent/abstained_frac"] == 0.25 and metrics["infra/failure_frac"] == 0.0
    assert isinstance(run.trainer, RecordingTrainer)
    (batch,) = [b for _, b in run.trainer.calls if isinstance(b, Batch)]
    assert len(batch.samples) <= 9


def test_a_reward_that_fails_takes_nothing_from_an_evaluation(make_run: MakeRun) -> None:
    async def fails(trajectory: Trajectory, box: Sandbox | None) -> float:
        raise InfraError("no reward")

    run = make_run()
    world = replace(run.world, scheme=Scheme({"fails": Weighted(reward=fails)}))
    played = Evaluation(
        step=0, split="heldout", tasks=run.tasks, config=EvalConfig(samples=2), seed=7
    )
    asyncio.run(evaluate(played, world, run.journal, lambda: None))
    solved = [row.solved for row in run.journal.evals()]
    assert len(solved) == 2 * len(run.tasks) and len(set(solved)) == 2


def test_a_gate_may_be_what_siblings_are_rated_by(make_run: MakeRun) -> None:
    parts = {"solved": Weighted(reward=SOLVED), "ranks": Weighted(reward=Ranks())}
    run = make_run()
    run = replace(run, world=replace(run.world, scheme=Scheme(parts, gated(["ranks"]))))
    step(run)
    for t in run.journal.trajectories(1):
        assert t.reward is not None and "solved" in t.reward.parts
        place = t.reward.parts["ranks/place"]
        assert t.reward.total == (1.0 + t.solved if place == 1 else 1.0 / place)
