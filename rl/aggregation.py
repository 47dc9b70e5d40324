"""How the losses of a batch's tokens become one number, as one weight per sample.

The learner sums ``weight * loss`` over tokens and divides by their number, so 1 everywhere is the
mean over tokens. Weights come from the whole batch before it is packed: they do not know of
micro-batches, padding or ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from palestra.rl.objectives.config import LossAggMode
from palestra.rl.types import Sample


def weighted(
    groups: Sequence[Sequence[Sample]], mode: LossAggMode, *, scale_factor: int
) -> list[Sample]:
    """The samples of all groups in order, each with its weight."""
    lengths = [[sample.learned for sample in group] for group in groups]
    weights = sample_weights(lengths, mode, scale_factor=scale_factor)
    return [
        replace(sample, weight=weight)
        for group, own in zip(groups, weights, strict=True)
        for sample, weight in zip(group, own, strict=True)
    ]


def sample_weights(
    lengths: Sequence[Sequence[int]], mode: LossAggMode, *, scale_factor: int
) -> list[list[float]]:
    """Weights by group and sample, from their numbers of generated tokens.

    ``seq-mean-token-sum-norm`` is Dr. GRPO's (arXiv 2503.20783), with ``scale_factor`` for its
    constant; a mean over prompts gives every group the same share however long its answers are.
    Samples without a token count as sequences, and have none to weigh.
    """
    tokens = sum(map(sum, lengths))
    sequences = sum(map(len, lengths))
    prompts = len(lengths)

    def weight(length: int, group: Sequence[int]) -> float:
        match mode:
            case "token-mean":
                return 1.0
            case "seq-mean-token-sum":
                return tokens / sequences
            case "seq-mean-token-mean":
                return tokens / (sequences * length)
            case "seq-mean-token-sum-norm":
                return tokens / (sequences * scale_factor)
            case "prompt-mean-token-mean":
                return tokens / (prompts * sum(group))
            case "prompt-mean-seq-mean":
                return tokens / (prompts * len(group) * length)

    return [[weight(length, group) if length else 0.0 for length in group] for group in lengths]
