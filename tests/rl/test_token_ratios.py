"""What the learner gives to the tokens of a few episodes is kept; nothing else changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from palestra.policies.fake import RecordingTrainer
from palestra.rl.run import Run
from palestra.rl.step import rl_step
from palestra.rl.token_ratios import learner_logprobs


def test_the_learner_scores_the_generated_tokens_of_a_few_episodes(
    make_run: Callable[..., Run],
) -> None:
    run = make_run(mismatch={"kept_episodes": 2}, temperature=0.5)
    asyncio.run(rl_step(1, run))
    played = {t.id: t for t in run.journal.trajectories(1)}
    kept = learner_logprobs(run.journal, 1)
    assert len(kept) == 2 and kept.keys() < played.keys()
    for name, values in kept.items():
        ids = [token for turn in played[name].turns for token in turn.token_ids]
        assert values == [-(token % 8) / 8 / 0.5 for token in ids]
    asyncio.run(rl_step(1, run))  # as after a kill
    assert learner_logprobs(run.journal, 1) == kept

    plain = make_run(temperature=0.5)
    asyncio.run(rl_step(1, plain))
    assert isinstance(run.trainer, RecordingTrainer)
    assert isinstance(plain.trainer, RecordingTrainer)
    assert run.trainer.batches[0] == plain.trainer.batches[0]
    everyone = make_run(mismatch={"kept_episodes": 99})
    asyncio.run(rl_step(1, everyone))
    assert learner_logprobs(everyone.journal, 1).keys() == played.keys()
