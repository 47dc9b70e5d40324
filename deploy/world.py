"""What every episode of a run or an evaluation shares, from its configuration."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from palestra.deploy.config import RunConfig
from palestra.deploy.tasks import Workshop
from palestra.policies.tokenizer import HFTokenizer
from palestra.rewards.assemble import assemble
from palestra.rl.budget import budget_of
from palestra.rl.types import Policy
from palestra.rollout.dialects import DIALECTS
from palestra.rollout.episode import World
from palestra.rollout.meter import Meter
from palestra.rollout.tokens import Chat


def make_world(config: RunConfig, shop: Workshop, policy: Path, engine: Policy) -> World:
    """``policy`` is the folder whose tokenizer is used."""
    return World(
        env=shop.env,
        chat=Chat(HFTokenizer(policy), DIALECTS[config.rollout.dialect]),
        policy=engine,
        boxes=shop.boxes.provider,
        grade=shop.boxes.grader,
        config=config.rollout,
        budget_of=partial(budget_of, config.rl.budget),
        scheme=assemble(config.rewards, shop.env.rewards, {"task_of": shop.tasks.task_of}),
        meter=Meter(),
        box_metrics=shop.boxes.metrics,
    )
