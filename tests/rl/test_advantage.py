"""Advantages and samples: what enters the batch, and as which tokens."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palestra.rl.advantage import advantages, centred, samples, to_sample
from palestra.rl.batch import batch_of
from palestra.rl.config import RLConfig
from palestra.rl.objectives.config import AdvEstimator
from palestra.rl.presets import Rule, rule
from palestra.rl.types import (
    Batch,
    Group,
    Message,
    Outcome,
    Routing,
    Sample,
    Stop,
    Trajectory,
    Turn,
)

Make = Callable[..., Trajectory]
rewards = st.lists(st.floats(-5, 5), min_size=1, max_size=12)
ids = st.lists(st.integers(0, 999), max_size=6).map(tuple)


def group(*trajectories: Trajectory) -> Group:
    return Group(id="g", task_id="task-g", trajectories=trajectories)


def taught(*trajectories: Trajectory, **rule: Any) -> list[Sample]:
    """The samples of one group."""
    return [sample for own in samples([group(*trajectories)], Rule(**rule)) for sample in own]


@given(rewards)
def test_centred_sums_to_zero_and_keeps_differences(values: list[float]) -> None:
    found = centred(values)
    assert sum(found) == pytest.approx(0.0, abs=1e-9)
    for a, b in zip(found, values, strict=True):
        assert a - found[0] == pytest.approx(b - values[0], abs=1e-9)


def test_by_std_divides() -> None:
    assert centred([1.0, 0.0, 0.0, 1.0], by_std=True) == pytest.approx([1, -1, -1, 1], abs=1e-5)
    assert centred([1.0, 0.0, 0.0, 1.0]) == [0.5, -0.5, -0.5, 0.5]
    assert centred([0.3, 0.3], by_std=True) == [0.0, 0.0]


@pytest.mark.parametrize("by_std", [True, False])
def test_a_uniform_or_single_group_yields_nothing(make_trajectory: Make, by_std: bool) -> None:
    same = [make_trajectory(name, reward=0.1) for name in "abc"]
    assert taught(*same, norm_adv_by_std=by_std) == []
    assert taught(same[0], norm_adv_by_std=by_std) == []
    assert taught(norm_adv_by_std=by_std) == []


def test_infrastructure_failures_are_in_neither_batch_nor_baseline(make_trajectory: Make) -> None:
    lost = make_trajectory("lost", reward=None, stop=Stop.INFRA_ERROR)
    assert lost.outcome is Outcome.INFRA_FAILURE
    played = [make_trajectory("a", reward=1.0), make_trajectory("b", reward=0.0)]
    found = taught(played[0], lost, played[1], lost)
    assert found == taught(*played)
    assert [sample.advantages for sample in found] == [
        (0, 0, 0.5, 0.5, 0.5),
        (0, 0, -0.5, -0.5, -0.5),
    ]
    # A failure beside equal rewards is no signal either.
    assert taught(played[0], lost, replace(played[0], id="c")) == []


TWO = [[1.0, 0.0, 0.5], [0.0, 3.0]]


def estimated(name: AdvEstimator, *, by_std: bool = False, tau: float = 1.0) -> list[list[float]]:
    return advantages(TWO, name, by_std=by_std, tau=tau)


def test_leave_one_out_compares_with_the_others() -> None:
    (a, b, c), (d, e) = estimated("leave_one_out")
    assert (a, b, c) == pytest.approx((1 - 0.5 / 2, 0 - 1.5 / 2, 0.5 - 1 / 2))
    assert (d, e) == (-3.0, 3.0)


@given(rewards, st.floats(0.05, 20))
def test_log_z_is_between_the_mean_and_the_largest_reward(values: list[float], tau: float) -> None:
    (found,) = advantages([values], "log_z", by_std=False, tau=tau)
    log_z = values[0] - found[0]
    exact = tau * math.log(sum(math.exp(r / tau) for r in values) / len(values))
    assert log_z == pytest.approx(exact, abs=1e-6)
    assert sum(values) / len(values) - 1e-6 <= log_z <= max(values) + 1e-6


def test_log_z_tends_to_the_mean_and_survives_a_small_tau() -> None:
    assert estimated("log_z", tau=1e6)[0] == pytest.approx(estimated("mean")[0], abs=1e-5)
    assert estimated("log_z", tau=1e-4)[1] == pytest.approx([-3.0, 0.0], abs=1e-3)


@pytest.mark.parametrize("name", ["reinforce_plus_plus", "reinforce_plus_plus_baseline"])
def test_reinforce_plus_plus_is_white_over_the_tokens_of_the_batch(
    make_trajectory: Make, make_turn: Callable[..., Turn], name: AdvEstimator
) -> None:
    groups = [
        group(
            *(
                make_trajectory(f"{g}{k}", reward=reward, turns=(make_turn(),) * (1 + k + g))
                for k, reward in enumerate(own)
            )
        )
        for g, own in enumerate(TWO)
    ]
    per_sample = [s for own in samples(groups, Rule(adv_estimator=name)) for s in own]
    flat = [a for s in per_sample for a, m in zip(s.advantages, s.loss_mask, strict=True) if m]
    assert len(flat) == 3 * (1 + 2 + 3 + 2 + 3)
    assert statistics.fmean(flat) == pytest.approx(0, abs=1e-9)
    assert statistics.pstdev(flat) == pytest.approx(1, abs=1e-5)
    # Differences within a group keep their size relative to those of another group.
    a, b, _, d, e = (max(s.advantages, key=abs) for s in per_sample)
    assert (e - d) / (a - b) == pytest.approx(3.0)
    same_scale = (e - b) / (a - b) == pytest.approx(3.0)
    assert same_scale == (name == "reinforce_plus_plus"), "the baseline is the group's mean"


def test_none_is_the_reward_and_std_divides_any_of_them() -> None:
    assert estimated("none") == TWO
    assert estimated("none", by_std=True)[1] == pytest.approx([0, 2], abs=1e-5)
    loo, mean = (estimated(name, by_std=True)[0] for name in ("leave_one_out", "mean"))
    assert loo == pytest.approx([1.5 * value for value in mean])


def test_what_becomes_of_a_uniform_group_follows_from_the_objective(
    make_trajectory: Make,
) -> None:
    same = group(*(make_trajectory(name, reward=0.5) for name in "abc"))
    alone = group(make_trajectory("d", reward=1.0))

    def kept(**config: Any) -> tuple[int, int]:
        made = rule(RLConfig(**config))
        return tuple(sum(map(len, samples([one], made))) for one in (same, alone))

    for name in ("k25", "grpo", "rloo", "dapo", "gspo", "cispo", "dr_grpo", "ppo_clip"):
        assert kept(objective={"name": name}) == (0, 0)
    for name in ("k15", "k2"):  # tau still pulls the sequence back
        assert kept(objective={"name": name}) == (3, 0)
    assert kept(objective={"name": "reinforce_plus_plus"}) == (3, 1)
    assert kept(adv_estimator="none") == (3, 1)
    assert kept(kl={"coef": 0.1}) == (3, 0)
    assert kept(kl={"coef": 0.1}, zero_variance_filter=True) == (0, 0)
    assert kept(zero_variance_filter=False) == (3, 0)
    (own,) = samples([same], rule(RLConfig(objective={"name": "k2"})))
    assert all(not any(sample.advantages) for sample in own)


@pytest.mark.parametrize(("count", "sizes"), [(1, ()), (2, (5, 3)), (3, (3, 3, 2)), (9, (3, 3, 2))])
def test_mini_batches_hold_whole_groups_and_are_weighed_by_themselves(
    make_trajectory: Make, count: int, sizes: tuple[int, ...]
) -> None:
    groups = [
        group(*(make_trajectory(f"{n}{k}", reward=float(k)) for k in range(2))) for n in range(3)
    ]
    ptx = samples([group(*(make_trajectory(f"p{k}", reward=float(k)) for k in range(2)))], Rule())
    by_prompt = Rule(loss_agg_mode="prompt-mean-seq-mean")
    batch = batch_of(4, groups, ptx[0], by_prompt, mini_batches=count)
    assert batch.mini_batches == sizes
    assert len(batch.samples) == 8
    assert [len(update) for update in batch.updates] == list(sizes or (8,))
    assert [sample for update in batch.updates for sample in update] == list(batch.samples)
    one = batch_of(4, groups, ptx[0], by_prompt, mini_batches=1)
    assert {s.token_ids for s in one.samples} == {s.token_ids for s in batch.samples}


def test_no_group_teaches_anything(make_trajectory: Make) -> None:
    same = group(*(make_trajectory(name, reward=0.5) for name in "abc"))
    for count in (1, 2):
        batch = batch_of(1, [same], (), Rule(), mini_batches=count)
        assert batch == Batch(step=1, samples=())
        assert batch.updates == [()]


def test_records_of_all_turns_become_one(make_trajectory: Make) -> None:
    played = make_trajectory("a")
    first, second = (
        replace(
            played.turns[0],
            routing=Routing(layers=2, top_k=1, item_bytes=2, experts=bytes([n]) * 4 * tokens),
        )
        for n, tokens in ((1, 4), (2, 5))
    )
    whole = to_sample(replace(played, turns=(first, second)), [0.0] * 6).routing
    assert whole is not None and whole.tokens == 9 == len(first.context_ids) * 2 + 5
    assert whole.experts == bytes([1]) * 16 + bytes([2]) * 20
    partly = replace(played, turns=(first, replace(second, routing=None)))
    assert to_sample(partly, [0.0] * 6).routing is None


@st.composite
def turns(draw: st.DrawFn) -> Turn:
    reply = draw(ids)
    logprobs = draw(st.lists(st.floats(-9, 0), min_size=len(reply), max_size=len(reply)))
    return Turn(
        context_ids=draw(ids),
        token_ids=reply,
        logprobs=tuple(logprobs),
        version=draw(st.integers(0, 3)),
        message=Message(role="assistant", content="not to be tokenised"),
        observation="nor this",
    )


@given(played=st.lists(turns(), max_size=4), advantage=st.floats(-2, 2).filter(bool))
def test_samples_are_the_turns_token_for_token(played: list[Turn], advantage: float) -> None:
    episode = Trajectory(
        id="t",
        group_id="g",
        task_id="x",
        step=1,
        prompt=(),
        turns=tuple(played),
        stop=Stop.SUBMITTED,
        outcome=Outcome.GRADED,
        temperature=0.7,
    )
    sample = to_sample(episode, [advantage] * episode.generated)
    assert sample.temperature == 0.7
    rest = list(
        zip(
            *(sample.token_ids, sample.loss_mask, sample.logprobs, sample.advantages, sample.ptx),
            strict=True,
        )
    )
    for turn in played:
        context, rest = rest[: len(turn.context_ids)], rest[len(turn.context_ids) :]
        reply, rest = rest[: len(turn.token_ids)], rest[len(turn.token_ids) :]
        assert context == [(token, False, 0.0, 0.0, 0.0) for token in turn.context_ids]
        assert reply == [
            (token, True, logprob, advantage, 0.0)
            for token, logprob in zip(turn.token_ids, turn.logprobs, strict=True)
        ]
    assert rest == []
    assert sum(sample.loss_mask) == episode.generated
