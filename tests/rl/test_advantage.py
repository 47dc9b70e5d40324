"""Advantages and samples: what enters the batch, and as which tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palestra.rl.advantage import centred, samples, to_sample
from palestra.rl.types import Group, Message, Outcome, Stop, Trajectory, Turn

Make = Callable[..., Trajectory]
rewards = st.lists(st.floats(-5, 5), min_size=1, max_size=12)
ids = st.lists(st.integers(0, 999), max_size=6).map(tuple)


def group(*trajectories: Trajectory) -> Group:
    return Group(id="g", task_id="task-g", trajectories=trajectories)


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
    assert samples(group(*same), by_std=by_std) == []
    assert samples(group(same[0]), by_std=by_std) == []
    assert samples(group(), by_std=by_std) == []


def test_infrastructure_failures_are_in_neither_batch_nor_baseline(make_trajectory: Make) -> None:
    lost = make_trajectory("lost", reward=None, stop=Stop.INFRA_ERROR)
    assert lost.outcome is Outcome.INFRA_FAILURE
    played = [make_trajectory("a", reward=1.0), make_trajectory("b", reward=0.0)]
    found = samples(group(played[0], lost, played[1], lost))
    assert found == samples(group(*played))
    assert [sample.advantages for sample in found] == [
        (0, 0, 0.5, 0.5, 0.5),
        (0, 0, -0.5, -0.5, -0.5),
    ]
    # A failure beside equal rewards is no signal either.
    assert samples(group(played[0], lost, replace(played[0], id="c"))) == []


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
    sample = to_sample(episode, advantage)
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
