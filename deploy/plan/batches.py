"""How many episodes, tokens and optimizer updates a step of a recipe comes to."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from palestra.deploy.config import RunConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """Of one step. Tokens are the most that can occur: every episode as long as it may be."""

    tasks: int
    episodes: int
    engines: int
    waves: int
    generated: int
    updates: int
    episodes_per_update: int
    micro_batches: int
    micro_batch_tokens: int
    staleness: int
    evaluation: int


def batches_of(config: RunConfig, engine_gpus: int = 1) -> Batches:
    """Prompts x samples, dealt to optimizer updates, packed into micro-batches for every rank.

    ``staleness`` is how many updates old the policy that sampled an episode is, at most, when the
    episode is learned from; a step that learns from its episodes once has 0.
    """
    rl, learner, ranks = config.rl, config.policy.learner, config.policy.num_gpus
    episodes = rl.train_batch_size * rl.n_samples_per_prompt
    updates = min(rl.mini_batches, rl.train_batch_size)
    per_update = ceil(rl.train_batch_size / updates) * rl.n_samples_per_prompt
    longest = config.rollout.max_context_length
    tokens = max(learner.micro_batch_tokens, longest)
    rows = ceil(per_update / max(1, learner.row_tokens // longest))
    rows_at_once = max(1, tokens // max(learner.row_tokens, longest))
    budget = max([rl.budget.default, *rl.budget.by_kind.values()])
    return Batches(
        tasks=rl.train_batch_size,
        episodes=episodes,
        engines=max(1, ranks // engine_gpus),
        waves=ceil(episodes / config.rollout.max_in_flight),
        generated=episodes * min(budget, longest),
        updates=updates,
        episodes_per_update=per_update,
        micro_batches=ceil(rows / (rows_at_once * ranks)),
        micro_batch_tokens=tokens,
        staleness=updates - 1,
        evaluation=len(rl.eval.splits) * rl.eval.limit * rl.eval.samples,
    )
