"""Weights per sample against the aggregation formulas on a padded matrix of losses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palestra.rl.aggregation import sample_weights, weighted
from palestra.rl.objectives.config import LossAggMode
from palestra.rl.types import Sample

losses = st.lists(st.floats(-5, 5), min_size=1, max_size=5)
groups = st.lists(st.lists(losses, min_size=1, max_size=4), min_size=1, max_size=4)


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def formula(mode: str, rows_G: list[list[list[float]]]) -> float:
    """verl's names; the sums of ``seq-mean-token-sum-norm`` are averaged as Dr. GRPO's are."""
    rows = [row for own in rows_G for row in own]
    tokens = [loss for row in rows for loss in row]
    return {
        "token-mean": lambda: mean(tokens),
        "seq-mean-token-sum": lambda: mean([sum(row) for row in rows]),
        "seq-mean-token-mean": lambda: mean([mean(row) for row in rows]),
        "seq-mean-token-sum-norm": lambda: mean([sum(row) / 7 for row in rows]),
        "prompt-mean-token-mean": lambda: mean(
            [mean([loss for row in own for loss in row]) for own in rows_G]
        ),
        "prompt-mean-seq-mean": lambda: mean([mean([mean(row) for row in own]) for own in rows_G]),
    }[mode]()


modes = pytest.mark.parametrize(
    "mode",
    [
        "token-mean",
        "seq-mean-token-sum",
        "seq-mean-token-mean",
        "seq-mean-token-sum-norm",
        "prompt-mean-token-mean",
        "prompt-mean-seq-mean",
    ],
)


@modes
@given(rows_G=groups)
def test_the_weighted_sum_is_the_formula(
    mode: LossAggMode, rows_G: list[list[list[float]]]
) -> None:
    lengths = [[len(row) for row in own] for own in rows_G]
    weights = sample_weights(lengths, mode, scale_factor=7)
    total = sum(
        weight * loss
        for own, ws in zip(rows_G, weights, strict=True)
        for row, weight in zip(own, ws, strict=True)
        for loss in row
    )
    tokens = sum(map(sum, lengths))
    assert total / tokens == pytest.approx(formula(mode, rows_G), abs=1e-9)


@modes
def test_a_sample_without_a_token_has_no_weight(mode: LossAggMode) -> None:
    weights = sample_weights([[0, 2], [0]], mode, scale_factor=7)
    assert weights[0][0] == weights[1][0] == 0.0 < weights[0][1]
    assert sample_weights([], mode, scale_factor=7) == []


def test_only_tokens_that_are_learned_count() -> None:
    def sample(*mask: bool) -> Sample:
        nothing = (0.0,) * len(mask)
        return Sample(
            token_ids=(1,) * len(mask),
            loss_mask=mask,
            logprobs=nothing,
            advantages=nothing,
            ptx=nothing,
        )

    long, short = sample(True, True, False, True), sample(False, False, True, False)
    found = weighted([[long], [short]], "seq-mean-token-mean", scale_factor=1)
    assert [s.weight for s in found] == [3 / (2 * 2), 3 / (2 * 1)]
    assert [s.token_ids for s in found] == [long.token_ids, short.token_ids]
