"""Learner against engine token by token, of a few episodes, for people to look at.

Both are log-probabilities under the weights that the episode was sampled from, at its temperature;
``exp(learner - engine)`` is the ratio that a mismatch correction weighs a token by.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from palestra.rl.advantage import to_sample
from palestra.rl.journal import Journal
from palestra.rl.run import Run
from palestra.rl.types import Group


async def keep_learner_logprobs(step: int, groups: Sequence[Group], run: Run) -> None:
    """Have the learner score ``rl.mismatch.kept_episodes`` of a step, chosen by the seed, and store
    what it gives to each generated token; before it learns."""
    played = [t for group in groups for t in group.trainable if t.generated]
    count = min(run.config.mismatch.kept_episodes, len(played))
    if not count:
        return
    chosen = random.Random(f"{run.seed}/ratios/{step}").sample(played, count)
    samples = [to_sample(t, [0.0] * t.generated) for t in chosen]
    scored = await run.trainer.logprobs(
        [sample.token_ids for sample in samples],
        samples[0].temperature,  # episodes of a step are sampled alike
    )
    kept = {
        t.id: [value for value, own in zip(values, sample.loss_mask, strict=True) if own]
        for t, sample, values in zip(chosen, samples, scored, strict=True)
    }
    run.journal.set_meta(_key(step), kept)


def learner_logprobs(journal: Journal, step: int) -> dict[str, list[float]]:
    """What ``keep_learner_logprobs`` stored, by trajectory id."""
    found = journal.get_meta(_key(step), {})
    assert isinstance(found, dict)
    return found


def _key(step: int) -> str:
    return f"learner_logprobs/{step}"
