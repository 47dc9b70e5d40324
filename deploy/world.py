"""What every episode of a run or an evaluation shares, from its configuration."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from palestra.deploy.config import RunConfig
from palestra.deploy.judge import judge_metrics, make_arbiter
from palestra.deploy.tasks import Workshop
from palestra.policies.tokenizer import HFTokenizer
from palestra.rewards.assemble import assemble
from palestra.rl.budget import budget_of
from palestra.rl.journal import Journal
from palestra.rl.types import Policy
from palestra.rollout.dialects import DIALECTS
from palestra.rollout.episode import World
from palestra.rollout.meter import Meter
from palestra.rollout.tokens import Chat


def make_world(
    config: RunConfig,
    shop: Workshop,
    policy: Path,
    engine: Policy,
    journal: Journal,
    version: Callable[[], int],
) -> World:
    """``policy`` is the folder whose tokenizer is used; ``journal`` remembers what judges said, and
    ``version`` is that of the weights which ``engine`` has."""
    chat = Chat(HFTokenizer(policy), DIALECTS[config.rollout.dialect])
    given = {
        "task_of": shop.tasks.task_of,
        "arbiter": make_arbiter(config, chat, engine, journal, version),
        "pairwise": config.rewards.pairwise,
    }
    scheme = assemble(config.rewards, shop.env.rewards, given)
    return World(
        env=shop.env,
        chat=chat,
        policy=engine,
        boxes=shop.boxes.provider,
        grade=shop.boxes.grader,
        config=config.rollout,
        budget_of=partial(budget_of, config.rl.budget),
        scheme=scheme,
        meter=Meter(),
        box_metrics=shop.boxes.metrics,
        judge_metrics=judge_metrics(scheme),
    )
