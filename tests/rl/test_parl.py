"""PARL: critical steps against a graph of single steps, and what the three terms prefer."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palestra.rl.parl import (
    Stage,
    annealed,
    critical_steps,
    finish_reward,
    parallel_reward,
    parl_reward,
    stages_within,
)

stages = st.lists(
    st.builds(
        Stage,
        main=st.integers(0, 2),
        subs=st.lists(st.integers(0, 3), max_size=3).map(tuple),
    ),
    max_size=4,
)


def longest_path(played: Sequence[Stage]) -> int:
    """Nodes on the longest path of the graph of single steps, by walking every path of it."""
    before: list[list[int]] = []  # per node, the nodes that it waits for

    def chain(length: int, after: list[int]) -> list[int]:
        """A chain of steps behind ``after``; what waits for its end."""
        for _ in range(length):
            before.append(after)
            after = [len(before) - 1]
        return after

    ends: list[int] = []
    for stage in played:
        start = chain(stage.main, ends)
        ends = [end for length in stage.subs for end in chain(length, start)] or start

    def walk(node: int) -> int:
        return 1 + max(map(walk, before[node]), default=0)

    return max(map(walk, ends), default=0)


@given(stages)
def test_critical_steps_are_the_longest_path(played: list[Stage]) -> None:
    assert critical_steps(played) == longest_path(played)


@given(stages, st.integers(0, 20))
def test_the_budget_ends_an_episode_before_the_stage_that_does_not_fit(
    played: list[Stage], budget: int
) -> None:
    fitting = stages_within(played, budget)
    assert critical_steps(played[:fitting]) <= budget
    assert fitting == len(played) or critical_steps(played[: fitting + 1]) > budget


def test_parallel_work_is_cheaper_than_the_same_work_in_a_row() -> None:
    assert critical_steps([Stage(subs=(5, 5, 5))]) == 6
    assert critical_steps([Stage(subs=(5,))] * 3) == 18
    assert critical_steps([]) == 0


@given(st.floats(0, 10), st.integers(1, 50))
def test_the_weights_fall_to_exactly_zero(weight: float, steps: int) -> None:
    values = [annealed(weight, step, steps) for step in range(1, steps + 3)]
    assert values == sorted(values, reverse=True)
    assert values[0] == (weight if steps > 1 else 0.0)
    assert values[steps - 1 :] == [0.0] * 3


def test_the_terms() -> None:
    assert [parallel_reward(n, 4) for n in (0, 1, 4, 9)] == [0.0, 0.25, 1.0, 1.0]
    assert [finish_reward(n, 4) for n in (0, 1, 4)] == [0.0, 0.25, 1.0]
    assert finish_reward(0, 0) == 0.0
    found = parl_reward(1.0, parallel=0.5, finish=0.25, lambda_1=0.2, lambda_2=0.4)
    assert found.total == pytest.approx(1.2)
    assert found.parts == {"parallel": 0.5, "finish": 0.25, "perf": 1.0}


def test_starting_sub_agents_and_leaving_them_is_worth_less_than_finishing() -> None:
    def reward(started: int, finished: int, step: int) -> float:
        return parl_reward(
            0.0,
            parallel=parallel_reward(started, 4),
            finish=finish_reward(finished, started),
            lambda_1=annealed(0.2, step, 10),
            lambda_2=annealed(0.2, step, 10),
        ).total

    assert reward(4, 4, 1) > reward(4, 0, 1) > reward(0, 0, 1) == 0.0
    assert reward(4, 4, 10) == reward(4, 0, 10) == 0.0, "in the end the outcome alone counts"
