"""Temperature by step: endpoints, direction, and what the episodes record."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from palestra.rl.config import TemperatureDecayConfig
from palestra.rl.run import Run
from palestra.rl.step import rl_step
from palestra.rl.temperature import temperature_of
from palestra.rl.train import train
from palestra.rl.types import Sampling

MakeRun = Callable[..., Run]
temperatures = st.floats(0.01, 5)


@given(
    shape=st.sampled_from(["linear", "cosine", "exponential"]),
    start=temperatures,
    final=temperatures,
    steps=st.integers(1, 60),
)
def test_schedules_hit_both_ends_and_never_turn_round(
    shape: str, start: float, final: float, steps: int
) -> None:
    decay = TemperatureDecayConfig.model_validate({"shape": shape, "final": final, "steps": steps})
    values = [temperature_of(step, start, decay) for step in range(1, steps + 3)]
    assert values[0] == (start if steps > 1 else final)
    assert values[steps - 1 :] == [final] * 3
    sign = 1 if final >= start else -1
    assert all(sign * (b - a) >= -1e-12 for a, b in pairwise(values))
    assert all(min(start, final) <= value <= max(start, final) for value in values)


@pytest.mark.parametrize(
    ("shape", "middle"), [("linear", 0.75), ("cosine", 0.75), ("exponential", 0.5**0.5)]
)
def test_the_middle_of_each_shape(shape: str, middle: float) -> None:
    decay = TemperatureDecayConfig.model_validate({"shape": shape, "final": 0.5, "steps": 11})
    assert temperature_of(6, 1.0, decay) == pytest.approx(middle)


def test_cosine_is_slow_at_both_ends() -> None:
    decay = TemperatureDecayConfig(shape="cosine", final=0.0001, steps=101)
    falls = [temperature_of(s, 1.0, decay) - temperature_of(s + 1, 1.0, decay) for s in (1, 50)]
    assert falls[0] < falls[1] / 10


def test_constant_and_points() -> None:
    constant = TemperatureDecayConfig(final=0.1)
    assert {temperature_of(step, 0.9, constant) for step in (1, 40, 99)} == {0.9}
    points = TemperatureDecayConfig(shape="points", points=[(3, 1.0), (5, 0.5), (6, 0.7)])
    found = [temperature_of(step, 9.0, points) for step in range(1, 9)]
    assert found == pytest.approx([1.0, 1.0, 1.0, 0.75, 0.5, 0.7, 0.7, 0.7])


@pytest.mark.parametrize(
    "points", [[], [(3, 1.0), (3, 0.5)], [(5, 1.0), (3, 0.5)], [(1, 0.0)], [(1, -1.0)]]
)
def test_points_that_are_no_schedule_are_refused(points: list[tuple[int, float]]) -> None:
    with pytest.raises(ValidationError, match="points need"):
        TemperatureDecayConfig(shape="points", points=points)


def test_every_episode_records_its_temperature_and_is_trained_with_it(make_run: MakeRun) -> None:
    decay = {"shape": "linear", "final": 0.5, "steps": 3}
    run = make_run(temperature_decay=decay)
    for step, temperature in ((1, 1.0), (2, 0.75), (3, 0.5), (4, 0.5)):
        asyncio.run(rl_step(step, run))
        assert {t.temperature for t in run.journal.trajectories(step)} == {temperature}
        (*_, batch) = run.trainer.batches  # type: ignore[attr-defined]
        assert {sample.temperature for sample in batch.samples} == {temperature}


def test_evaluations_keep_their_own_temperature_while_that_of_training_decays(
    make_run: MakeRun,
) -> None:
    asked: list[float] = []

    def script(context: str, sampling: Sampling) -> str:
        asked.append(sampling.temperature)
        return "no call at all"

    decay = {"shape": "linear", "final": 0.5, "steps": 3}
    evaluation = {"freq": 1, "temperature": 0.3}
    run = make_run(script=script, steps=3, temperature_decay=decay, eval=evaluation)
    heldout = {"heldout": list(run.tasks[:2])}
    asyncio.run(train(run, heldout, lambda *_: None, lambda *_: lambda: None))
    journal = run.journal
    trained = [{t.temperature for t in journal.trajectories(step)} for step in (1, 2, 3)]
    assert trained == [{1.0}, {0.75}, {0.5}]
    evaluated = [journal.eval_trajectories(step, "heldout") for step in range(4)]
    assert [[t.temperature for t in played] for played in evaluated] == [[0.3, 0.3]] * 4
    assert set(asked) == {0.3, 1.0, 0.75, 0.5}, "the engine was asked with them, too"
