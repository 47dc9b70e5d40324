"""Attention over sequences against a mask over rows, and what it does not allocate."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from palestra.policies.attention import attend, sequences_of, use
from palestra.policies.config import LearnerConfig
from palestra.policies.module import load_policy
from palestra.policies.packing import micro_batches
from palestra.rl.errors import UserError
from palestra.rl.types import Sample

HEADS, GROUPS, WIDTH = 4, 2, 8


def mask_of(segments: torch.Tensor, parents: torch.Tensor) -> torch.Tensor:
    """Boolean [R, 1, L, L]: a continuation sees its prompt and itself, never its siblings."""
    length = segments.shape[1]
    seen = (segments[:, :, None] == segments[:, None]) | (parents[:, :, None] == segments[:, None])
    return (seen & torch.ones(length, length, dtype=torch.bool).tril())[:, None]


@st.composite
def rows(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    """Segments and parents: families of a prompt and up to three continuations, then padding."""
    sizes = st.integers(1, 9)
    made = []
    for _ in range(draw(st.integers(1, 2))):
        segments, parents = [], []
        for _ in range(draw(st.integers(1, 3))):
            parent = max(segments, default=0) + 1
            for n in range(draw(st.integers(1, 4))):
                size = draw(sizes)
                segments += [parent + n] * size
                parents += [parent] * size
        made.append((segments, parents))
    width = max(len(own) for own, _ in made) + draw(st.integers(0, 2))
    padded = [[[*part, *[0] * (width - len(part))] for part in row] for row in made]
    segments, parents = zip(*padded, strict=True)
    return torch.tensor(segments), torch.tensor(parents)


@given(where=rows(), seed=st.integers(0, 1000), values=st.sampled_from([WIDTH, WIDTH - 3]))
@settings(max_examples=40)
def test_results_and_gradients_are_those_of_a_mask(
    where: tuple[torch.Tensor, torch.Tensor], seed: int, values: int
) -> None:
    segments, parents = where
    count, length = segments.shape
    rng = torch.Generator().manual_seed(seed)
    given_ = [
        torch.randn(count, heads, length, width, generator=rng).requires_grad_()
        for heads, width in ((HEADS, WIDTH), (GROUPS, WIDTH), (GROUPS, values))
    ]
    weights = torch.randn(count, length, HEADS, values, generator=rng)
    weights *= (segments > 0)[:, :, None, None]

    query, key, value = given_
    repeated = (x.repeat_interleave(HEADS // GROUPS, 1) for x in (key, value))
    expected = torch.nn.functional.scaled_dot_product_attention(
        query, *repeated, attn_mask=mask_of(segments, parents), scale=0.5
    ).transpose(1, 2)
    wanted = torch.autograd.grad((expected * weights).sum(), given_)

    layer = SimpleNamespace(num_key_value_groups=HEADS // GROUPS)
    sequences = sequences_of(segments, parents)
    found, _ = attend(layer, query, key, value, None, sequences=sequences, scaling=0.5)
    real = segments > 0
    torch.testing.assert_close(found[real], expected[real], atol=1e-5, rtol=1e-4)
    for ours, theirs in zip(
        torch.autograd.grad((found * weights).sum(), given_), wanted, strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_a_window_is_no_matter_until_a_sequence_is_longer() -> None:
    sequences = sequences_of(torch.tensor([[1, 1, 1, 2, 2, 0]]), torch.tensor([[1] * 5 + [0]]))
    layer = SimpleNamespace(num_key_value_groups=1)
    states = [torch.randn(1, 2, 6, WIDTH) for _ in range(3)]
    plain, _ = attend(layer, *states, None, sequences=sequences, scaling=1.0)
    found, _ = attend(layer, *states, None, sequences=sequences, scaling=1.0, sliding_window=5)
    assert torch.equal(found, plain)
    with pytest.raises(UserError, match="sees 4 tokens, and a sample has 5"):
        attend(layer, *states, None, sequences=sequences, scaling=1.0, sliding_window=4)


class Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation gives, in forward and backward passes."""

    size = 0

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = op(*args, **kwargs or {})
        for found in result if isinstance(result, (tuple, list)) else (result,):
            if torch.is_tensor(found):
                self.size = max(self.size, found.numel())
        return result


def test_nothing_grows_with_tokens_squared_or_with_tokens_by_vocabulary(tiny: Path) -> None:
    """One long sample beside short ones that share a prompt."""
    rng = random.Random(0)
    long, vocabulary = 3000, 400

    def sample(*ids: int) -> Sample:
        return Sample(
            token_ids=ids,
            loss_mask=(False,) * 2 + (True,) * (len(ids) - 2),
            logprobs=(0.0,) * len(ids),
            advantages=(0.0,) * len(ids),
            ptx=(0.0,) * len(ids),
        )

    samples = [sample(*(rng.randrange(vocabulary) for _ in range(long)))]
    samples += [sample(1, 2, *range(3, 20 + n)) for n in range(8)]
    module = load_policy(str(tiny), LearnerConfig(logprob_chunk=32)).train()
    micros = micro_batches(samples, row_tokens=512, micro_batch_tokens=512)
    with Largest() as largest:
        for micro in micros:
            module(micro, entropy=True)[0].sum().backward()
    tokens = max(micro.token_ids.numel() for micro in micros)
    assert tokens >= long
    intermediate = module.model.config.intermediate_size
    assert tokens * intermediate <= largest.size < 1.1 * tokens * intermediate
    assert largest.size < tokens * vocabulary / 5


def test_narrow_values_need_no_scores_of_all_pairs() -> None:
    """Latent attention has them."""
    length = 2000
    segments = torch.ones(1, length, dtype=torch.long)
    query, key = (torch.randn(1, 1, length, 8).requires_grad_() for _ in range(2))
    value = torch.randn(1, 1, length, 4).requires_grad_()
    with Largest() as largest:
        sequences = sequences_of(segments, segments)
        found, _ = attend(SimpleNamespace(), query, key, value, None, sequences=sequences)
        found.sum().backward()
    assert found.shape == (1, length, 1, 4)
    assert largest.size <= length * 8 * 3


def test_attention_of_another_kind_is_refused(tiny: Path) -> None:
    model = load_policy(str(tiny), LearnerConfig()).model
    model.set_attn_implementation("eager")
    with pytest.raises(UserError, match="attention can be sdpa"):
        use(model)
