"""Packing: every token that carries a loss, once, with its own signals."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palestra.policies.attention import sequences_of
from palestra.policies.packing import MicroBatch, micro_batches, rows_of
from palestra.rl.types import Sample


def sample(size: int, seed: int, prompt: int = 0) -> Sample:
    """Random ids and signals; float32 holds every signal exactly. ``prompt`` tokens (at most) are
    the same for every seed and carry no loss."""
    rng = random.Random(seed)
    shared = min(prompt, size)

    def numbers() -> list[float]:
        return [rng.randrange(1, 64) / 64 for _ in range(size)]

    mask = [t >= shared and rng.random() < 0.5 for t in range(size)]
    return Sample(
        token_ids=(*range(1, shared + 1), *(rng.randrange(1, 1000) for _ in range(size - shared))),
        loss_mask=tuple(mask),
        logprobs=tuple(-x if m else 0.0 for x, m in zip(numbers(), mask, strict=True)),
        advantages=tuple(x if m else 0.0 for x, m in zip(numbers(), mask, strict=True)),
        ptx=tuple(
            x if t >= shared and rng.random() < 0.3 else 0.0 for t, x in enumerate(numbers())
        ),
        temperature=rng.randrange(1, 8) / 4,
    )


def samples(sizes: list[int], prompt: int = 0) -> list[Sample]:
    return [sample(size, seed, prompt) for seed, size in enumerate(sizes)]


def pack(sizes: list[int], row: int, micro: int, prompt: int = 0) -> list[MicroBatch]:
    return micro_batches(samples(sizes, prompt), row_tokens=row, micro_batch_tokens=micro)


def learned(s: Sample) -> list[int]:
    return [t for t in range(1, len(s.token_ids)) if s.loss_mask[t] or s.ptx[t]]


def seen_from(batch: MicroBatch) -> dict[int, list[int]]:
    """Flat places that each place of the rows may look at."""
    sequences = sequences_of(batch.segments, batch.parents)
    return {
        place: own[: t + 1]
        for stack, lengths in zip(sequences.stacks, sequences.lengths, strict=True)
        for own, length in zip(stack.tolist(), lengths.tolist(), strict=True)
        for t, place in enumerate(own[:length])
    }


sizes_lists = st.lists(st.integers(0, 30), max_size=12)
packings = {"row": st.integers(1, 60), "micro": st.integers(1, 200), "prompt": st.integers(0, 20)}


@given(sizes=sizes_lists, **packings)
@settings(max_examples=120)
def test_every_loss_token_appears_once_with_its_own_signals_and_sees_its_own_beginning(
    sizes: list[int], row: int, micro: int, prompt: int
) -> None:
    expected = [
        (
            n,
            s.token_ids[: t + 1],
            s.loss_mask[t],
            s.logprobs[t],
            s.advantages[t],
            s.ptx[t],
            s.temperature,
        )
        for n, s in enumerate(samples(sizes, prompt))
        for t in learned(s)
    ]
    found = []
    for batch in pack(sizes, row, micro, prompt):
        ids, places = batch.token_ids.flatten(), batch.positions.flatten()
        seen = seen_from(batch)
        rest = (batch.policy, batch.logprobs, batch.advantages, batch.ptx, batch.temperature)
        for source, index, target, *signals in zip(
            batch.source.tolist(),
            batch.sample.tolist(),
            batch.target.tolist(),
            *(tensor.tolist() for tensor in rest),
            strict=True,
        ):
            visible = seen[source]
            assert places[visible].tolist() == list(range(len(visible)))
            # All that the model may see, then the token: the sample's own beginning.
            found.append((index, (*ids[visible].tolist(), target), *signals))
    assert sorted(found) == sorted(expected)


@given(sizes=sizes_lists, **packings)
@settings(max_examples=80)
def test_rows_and_micro_batches_keep_to_their_sizes(
    sizes: list[int], row: int, micro: int, prompt: int
) -> None:
    for batch in pack(sizes, row, micro, prompt):
        rows, width = batch.token_ids.shape
        assert 0 < width <= max([row, *sizes])
        assert rows == 1 or rows * width <= micro
        for ids, places, segments, parents in zip(
            batch.token_ids.tolist(),
            batch.positions.tolist(),
            batch.segments.tolist(),
            batch.parents.tolist(),
            strict=True,
        ):
            used = sum(1 for s in segments if s)
            assert all(segments[:used]) and segments[:used] == sorted(segments[:used])
            assert not any(ids[used:] + places[used:] + parents[used:])
            assert all(parent <= own for parent, own in zip(parents, segments, strict=True))


@given(sizes=sizes_lists, ranks=st.integers(1, 4), **packings)
@settings(max_examples=80)
def test_ranks_share_every_token_and_know_the_largest_share(
    sizes: list[int], ranks: int, row: int, micro: int, prompt: int
) -> None:
    packed = samples(sizes, prompt)
    shares = [
        micro_batches(packed, row_tokens=row, micro_batch_tokens=micro, rank=rank, ranks=ranks)
        for rank in range(ranks)
    ]
    for together in zip(*shares, strict=True):
        assert len({batch.token_ids.shape[1] for batch in together}) == 1
        assert {b.most for b in together} == {max(len(batch.target) for batch in together)}
    found = [index for share in shares for batch in share for index in batch.sample.tolist()]
    assert sorted(found) == [n for n, s in enumerate(packed) for _ in learned(s)]


def test_a_group_pays_for_its_prompt_once() -> None:
    (batch,) = micro_batches(
        [
            Sample(
                token_ids=(*range(100), 200 + n, 300 + n),
                loss_mask=(False,) * 100 + (True,) * 2,
                logprobs=(0.0,) * 102,
                advantages=(0.0,) * 102,
                ptx=(0.0,) * 102,
            )
            for n in range(8)
        ],
        row_tokens=512,
        micro_batch_tokens=4096,
    )
    assert batch.token_ids.shape == (1, 100 + 8 * 2)
    assert batch.source.tolist()[::2] == [99] * 8


def test_packing_is_deterministic() -> None:
    sizes = [random.Random(0).randrange(1, 50) for _ in range(40)]
    first, second = pack(sizes, 64, 256), pack(sizes, 64, 256)
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.most == b.most
        for name in set(MicroBatch.__slots__) - {"most", "experts"}:
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
