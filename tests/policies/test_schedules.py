"""Learning rates against closed forms."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palestra.policies.config import LearnerConfig
from palestra.policies.schedules import learning_rate

NAMES = ("constant", "linear", "cosine", "wsd")


def rates(steps: int, **config: Any) -> list[float]:
    settings = LearnerConfig(lr=2.0, **config)
    return [learning_rate(step, settings) for step in range(steps)]


def test_constant_after_a_linear_warm_up() -> None:
    found = rates(6, schedule="constant", warmup_steps=4, decay_steps=3)
    assert found == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0, 2.0])


def test_linear_falls_from_the_start_and_stops_at_a_tenth() -> None:
    assert rates(6, decay_steps=4) == pytest.approx([2.0, 1.5, 1.0, 0.5, 0.2, 0.2])


def test_cosine_is_half_way_in_the_middle() -> None:
    found = rates(6, schedule="cosine", decay_steps=4, min_lr_ratio=0.5)
    eighth = math.cos(math.pi / 4) / 2
    assert found == pytest.approx([2.0, 1.5 + eighth, 1.5, 1.5 - eighth, 1.0, 1.0])


def test_warm_up_stable_decay() -> None:
    found = rates(10, schedule="wsd", warmup_steps=2, stable_steps=3, decay_steps=2)
    assert found == pytest.approx([1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.1, 0.2, 0.2, 0.2])


@given(
    schedule=st.sampled_from(NAMES),
    warmup=st.integers(0, 20),
    stable=st.integers(0, 20),
    decay=st.integers(0, 40),
    floor=st.floats(0, 1),
)
def test_it_rises_only_in_the_warm_up_and_stays_between_floor_and_peak(
    schedule: str, warmup: int, stable: int, decay: int, floor: float
) -> None:
    found = rates(
        100,
        schedule=schedule,
        warmup_steps=warmup,
        stable_steps=stable,
        decay_steps=decay,
        min_lr_ratio=floor,
    )
    after = found[warmup:]
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(after))
    assert all(2.0 * floor - 1e-12 <= rate <= 2.0 for rate in after)
    assert found[-1] == pytest.approx(
        2.0 if schedule == "constant" or not decay else 2.0 * floor, abs=1e-9
    )
