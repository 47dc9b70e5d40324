"""What a step learns from: its groups as samples with advantages and weights, in mini-batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from palestra.rl.advantage import samples
from palestra.rl.aggregation import weighted
from palestra.rl.critic.loop import NONE, Lessons
from palestra.rl.presets import Rule
from palestra.rl.types import Batch, Group, Sample


def batch_of(
    step: int,
    groups: Sequence[Group],
    ptx: Sequence[Sample],
    rule: Rule,
    *,
    mini_batches: int,
    penalties: Mapping[str, Sequence[float]] | None = None,
    lessons: Lessons = NONE,
) -> Batch:
    """Groups and supervised samples are dealt to the mini-batches in turn, so none is split; each
    mini-batch has its losses weighed by itself. One that would be empty is left out.

    The critic's judged episodes are groups like the others; its preference samples, whose weights
    are those of the first update, are in the first mini-batch."""
    taught = [*samples(groups, rule, penalties), *lessons.judged]
    dealt = [
        (
            *weighted(taught[n::mini_batches], rule.loss_agg_mode, scale_factor=rule.scale_factor),
            *ptx[n::mini_batches],
        )
        for n in range(mini_batches)
    ]
    dealt[0] = (*dealt[0], *lessons.preferred)
    sizes = tuple(len(own) for own in dealt if own)
    return Batch(
        step=step,
        samples=tuple(sample for own in dealt for sample in own),
        mini_batches=sizes if mini_batches > 1 else (),
    )
