"""Batches of the supervised stage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palestra.rl.sft import epochs
from palestra.rl.types import Sample


def sample(token: int) -> Sample:
    return Sample(
        token_ids=(token,), loss_mask=(False,), logprobs=(0.0,), advantages=(0.0,), ptx=(1.0,)
    )


def pool(size: int, epoch: int) -> list[Sample]:
    """Samples that say which epoch they belong to."""
    return [sample(1000 * epoch + number) for number in range(size)]


@given(
    size=st.integers(1, 12),
    batch_size=st.integers(1, 30),
    steps=st.integers(0, 8),
    seed=st.integers(0, 5),
)
def test_every_sample_of_an_epoch_is_used_once_and_in_its_turn(
    size: int, batch_size: int, steps: int, seed: int
) -> None:
    asked: list[int] = []

    def samples_of(epoch: int) -> Sequence[Sample]:
        asked.append(epoch)
        return pool(size, epoch)

    batches = list(epochs(samples_of, steps=steps, batch_size=batch_size, seed=seed))
    assert [batch.step for batch in batches] == list(range(steps))
    assert all(len(batch.samples) == batch_size for batch in batches)
    tokens = [s.token_ids[0] for batch in batches for s in batch.samples]
    assert asked == list(range(-(-len(tokens) // size)))
    for epoch in asked:
        part = Counter(tokens[epoch * size : (epoch + 1) * size])
        whole = Counter(s.token_ids[0] for s in pool(size, epoch))
        assert part == whole if (epoch + 1) * size <= len(tokens) else part <= whole


def test_the_order_depends_on_the_seed_alone() -> None:
    def run(seed: int) -> list[object]:
        return list(epochs(lambda e: pool(40, e), steps=4, batch_size=20, seed=seed))

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_epochs_are_shuffled_differently() -> None:
    first, second = epochs(lambda e: pool(40, 0), steps=2, batch_size=40, seed=1)
    assert first.samples != second.samples
    assert set(first.samples) == set(second.samples) == set(pool(40, 0))


def test_nothing_to_learn_from() -> None:
    with pytest.raises(ValueError, match="nothing to learn"):
        next(epochs(lambda _: [], steps=1, batch_size=1, seed=0))
