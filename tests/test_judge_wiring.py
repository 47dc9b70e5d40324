"""From a recipe to a judge that is asked: named, reached before the run, counted."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from palestra.deploy.config import RunConfig
from palestra.deploy.config_file import load_recipe
from palestra.deploy.judge import judge_metrics, make_arbiter, reachable_judges
from palestra.rewards.assemble import assemble
from palestra.rewards.judging.arbiter import Arbiter
from palestra.rewards.judging.endpoint import EndpointJudge
from palestra.rewards.judging.fake import MemoryStore, RuleJudge, preferring
from palestra.rewards.judging.pairwise import PairwiseCritic
from palestra.rewards.score import Scheme, rate
from palestra.rl.errors import UserError
from palestra.rl.journal import Journal
from palestra.rollout.judge import PolicyJudge

USE = ["rewards.environment=false", "rewards.use.pairwise_critic.weight=2.0"]
NOWHERE = [
    'rewards.judge.kind="endpoint"',
    'rewards.judge.endpoint.model="m"',
    'rewards.judge.endpoint.base_url="http://127.0.0.1:9/v1"',
    "rewards.judge.endpoint.retries=0",
]
NOBODY: Any = None  # a judge that is not asked needs neither template nor engine


def config(*overrides: str) -> RunConfig:
    return load_recipe(None, overrides).config


def scheme(chosen: RunConfig, arbiter: Arbiter) -> Scheme:
    return assemble(chosen.rewards, {}, {"arbiter": arbiter, "pairwise": chosen.rewards.pairwise})


def test_a_recipe_names_the_judge(tmp_path: Path) -> None:
    trainer = SimpleNamespace(version=0)
    with Journal(tmp_path / "journal.sqlite") as journal:
        policy = make_arbiter(config(*USE), NOBODY, NOBODY, journal, lambda: trainer.version)
        assert isinstance(policy.judge, PolicyJudge) and policy.judge.name == "policy@0/t=0.7"
        trainer.version = 3  # a kill between checkpoint and journal: the journal knows of step 2
        journal.finish_step(2, {})
        assert policy.judge.name == "policy@3/t=0.7"
        endpoint = make_arbiter(config(*USE, *NOWHERE), NOBODY, NOBODY, journal, lambda: 3)
        assert isinstance(endpoint.judge, EndpointJudge)
        assert endpoint.judge.name == "m at http://127.0.0.1:9/v1/t=0.7"


def test_a_judge_that_cannot_be_reached_ends_the_run_before_it_begins(tmp_path: Path) -> None:
    async def enter(*overrides: str) -> None:
        chosen = config(*overrides)
        with Journal(tmp_path / "journal.sqlite") as journal:
            arbiter = make_arbiter(chosen, NOBODY, NOBODY, journal, lambda: 0)
            async with reachable_judges(scheme(chosen, arbiter)):
                pass

    single = ["rewards.environment=false", "rewards.use.judged_faithfulness.weight=1.0"]
    asyncio.run(enter(*USE))
    with pytest.raises(UserError, match=r"judge m at \S+ cannot be reached"):
        asyncio.run(enter(*single, *NOWHERE))
    with pytest.raises(UserError, match=r"judge m at \S+ cannot be reached"):
        asyncio.run(enter(*USE, *NOWHERE))
    with pytest.raises(UserError, match="environment variable NO_SUCH_KEY"):
        asyncio.run(enter(*USE, *NOWHERE, 'rewards.judge.endpoint.api_key_env="NO_SUCH_KEY"'))


def test_siblings_are_rated_and_the_judge_is_counted(make_trajectory: Any, make_turn: Any) -> None:
    chosen = config(*USE, 'rewards.pairwise.criteria=["core"]')
    arbiter = Arbiter(RuleJudge(preferring(len)), chosen.rewards.judge, MemoryStore())
    parts = scheme(chosen, arbiter)
    assert isinstance(parts.parts["pairwise_critic"].reward, PairwiseCritic)
    group = [
        make_trajectory(f"g/{n}", turns=(make_turn("x" * (n + 1)),), reward=1.0) for n in range(3)
    ]
    rated = asyncio.run(rate(group, parts))
    assert [t.reward.parts["pairwise_critic"] for t in rated if t.reward] == [0.0, 0.5, 1.0]
    assert [t.reward.total for t in rated if t.reward] == [0.0, 1.0, 2.0]
    metrics = judge_metrics(parts)(1)
    assert metrics["judge/calls"] == 6 and metrics["judge/comparisons"] == 3


def test_wrong_rubrics_are_told_at_once() -> None:
    chosen = config(*USE, 'rewards.pairwise.criteria=["nope"]')
    arbiter = Arbiter(RuleJudge(preferring(len)), chosen.rewards.judge, MemoryStore())
    with pytest.raises(UserError, match="no criteria 'nope'"):
        scheme(chosen, arbiter)
