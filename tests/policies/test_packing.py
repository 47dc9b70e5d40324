"""Packing: every token that carries a loss, once, with its own signals."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palestra.policies.packing import MicroBatch, attention_mask, micro_batches, rows_of
from palestra.rl.types import Sample


def sample(size: int, seed: int) -> Sample:
    """Random ids and signals; float32 holds every signal exactly."""
    rng = random.Random(seed)

    def numbers() -> tuple[float, ...]:
        return tuple(rng.randrange(1, 64) / 64 for _ in range(size))

    mask = tuple(rng.random() < 0.5 for _ in range(size))
    return Sample(
        token_ids=tuple(rng.randrange(1, 1000) for _ in range(size)),
        loss_mask=mask,
        logprobs=tuple(-x if m else 0.0 for x, m in zip(numbers(), mask, strict=True)),
        advantages=tuple(x if m else 0.0 for x, m in zip(numbers(), mask, strict=True)),
        ptx=tuple(x if rng.random() < 0.3 else 0.0 for x in numbers()),
        temperature=rng.randrange(1, 8) / 4,
    )


def samples(sizes: list[int]) -> list[Sample]:
    return [sample(size, seed) for seed, size in enumerate(sizes)]


def pack(sizes: list[int], row: int, micro: int) -> list[MicroBatch]:
    return micro_batches(samples(sizes), row_tokens=row, micro_batch_tokens=micro)


sizes_lists = st.lists(st.integers(0, 30), max_size=12)


@given(sizes=sizes_lists, row=st.integers(1, 60), micro=st.integers(1, 200))
@settings(max_examples=80)
def test_every_loss_token_appears_once_with_its_own_signals(
    sizes: list[int], row: int, micro: int
) -> None:
    packed = samples(sizes)
    expected = [
        (
            s.token_ids[: t + 1],
            s.loss_mask[t],
            s.logprobs[t],
            s.advantages[t],
            s.ptx[t],
            s.temperature,
        )
        for s in packed
        for t in range(1, len(s.token_ids))
        if s.loss_mask[t] or s.ptx[t]
    ]
    found = []
    for batch in pack(sizes, row, micro):
        ids, segments = batch.token_ids.flatten().tolist(), batch.segments.flatten().tolist()
        places = batch.positions.flatten().tolist()
        rest = (
            batch.target,
            batch.policy,
            batch.logprobs,
            batch.advantages,
            batch.ptx,
            batch.temperature,
        )
        for source, target, *signals in zip(
            batch.source.tolist(), *(tensor.tolist() for tensor in rest), strict=True
        ):
            first = source - places[source]
            assert set(segments[first : source + 2]) == {segments[source]} != {0}
            assert ids[source + 1] == target
            # All that the model may see, then the token: the sample's own beginning.
            found.append((tuple(ids[first : source + 2]), *signals))
    assert sorted(found) == sorted(expected)


@given(sizes=sizes_lists, row=st.integers(1, 60), micro=st.integers(1, 200))
@settings(max_examples=80)
def test_rows_and_micro_batches_keep_to_their_sizes(sizes: list[int], row: int, micro: int) -> None:
    batches = pack(sizes, row, micro)
    capacity = max([row, *sizes])
    whole = []
    for batch in batches:
        rows, width = batch.token_ids.shape
        assert 0 < width <= capacity
        assert rows == 1 or rows * width <= micro
        for ids, places, segments in zip(
            batch.token_ids.tolist(), batch.positions.tolist(), batch.segments.tolist(), strict=True
        ):
            used = sum(1 for s in segments if s)
            assert all(segments[:used]) and segments[:used] == sorted(segments[:used])
            assert not any(ids[used:]) and not any(places[used:])
            for segment in set(segments[:used]):
                at = [i for i, s in enumerate(segments) if s == segment]
                assert [places[i] for i in at] == list(range(len(at)))
                whole.append(tuple(ids[i] for i in at))
    assert sorted(whole) == sorted(s.token_ids for s in samples(sizes) if s.token_ids)


def test_packing_is_deterministic() -> None:
    sizes = [random.Random(0).randrange(1, 50) for _ in range(40)]
    first, second = pack(sizes, 64, 256), pack(sizes, 64, 256)
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        for name in MicroBatch.__slots__:
            assert torch.equal(getattr(a, name), getattr(b, name))


@pytest.mark.parametrize("seed", range(5))
def test_little_is_padding(seed: int) -> None:
    rng = random.Random(seed)
    sizes = [rng.randrange(20, 300) for _ in range(128)]
    batches = pack(sizes, 512, 4096)
    padding = sum(int((batch.segments == 0).sum()) for batch in batches)
    assert padding < 0.05 * sum(sizes)


@given(lengths=st.lists(st.integers(0, 40), max_size=30), row=st.integers(1, 60))
def test_rows_hold_every_index_once_within_capacity(lengths: list[int], row: int) -> None:
    rows = rows_of(lengths, row)
    assert sorted(index for indices in rows for index in indices) == list(range(len(lengths)))
    loads = [sum(lengths[i] for i in indices) for indices in rows]
    assert all(load <= max(row, *lengths) for load in loads)
    # First fit: no two rows would fit into one.
    assert all(a + b > max(row, *lengths) for n, a in enumerate(loads) for b in loads[:n])


def test_a_sample_longer_than_a_row_gets_its_own_width() -> None:
    (batch,) = pack([100], 16, 32)
    assert batch.token_ids.shape == (1, 100)


def test_nothing_to_pack() -> None:
    assert pack([], 16, 32) == pack([0, 0], 16, 32) == []


def test_attention_is_causal_and_within_a_sample() -> None:
    segments = torch.tensor([[1, 1, 2, 2, 0], [1, 1, 1, 1, 1]])
    mask = attention_mask(segments)
    assert mask.shape == (2, 1, 5, 5) and mask.dtype is torch.bool
    for r in range(2):
        for query in range(5):
            for key in range(5):
                same = segments[r, query] == segments[r, key]
                assert mask[r, 0, query, key].item() == (bool(same) and key <= query)
    assert mask.any(-1).all(), "a row that sees nothing would be NaN"
