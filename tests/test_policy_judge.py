"""A tiny random policy judges in the real engine: nonsense, which nobody takes for a verdict."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from palestra.policies.config import EngineConfig, TinyConfig
from palestra.policies.engine import VllmEngine
from palestra.policies.tiny import build
from palestra.policies.tokenizer import HFTokenizer
from palestra.rewards.config import JudgeConfig, PairwiseConfig
from palestra.rewards.judging.arbiter import Arbiter
from palestra.rewards.judging.pairwise import PairwiseCritic
from palestra.rewards.judging.rubrics import read_rubrics
from palestra.rl.errors import Abstain, EngineError
from palestra.rl.journal import Journal
from palestra.rl.types import Trajectory, Turn
from palestra.rollout.dialects import DIALECTS
from palestra.rollout.judge import PolicyJudge
from palestra.rollout.tokens import Chat

pytestmark = pytest.mark.timeout(600)
CONTEXT = 4096
TRIES = 2


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """Takes back what vLLM put into the environment of this process."""
    before = dict(os.environ)
    yield
    test = {name: os.environ[name] for name in ("PYTEST_CURRENT_TEST",) if name in os.environ}
    os.environ.clear()
    os.environ.update(before | test)


def test_nonsense_abstains_is_counted_and_recorded(
    tmp_path: Path,
    make_trajectory: Callable[..., Trajectory],
    make_turn: Callable[..., Turn],
) -> None:
    folder = tmp_path / "tiny"
    shape = TinyConfig(
        vocab_size=800,
        hidden_size=64,
        intermediate_size=64,
        layers=2,
        heads=2,
        kv_heads=1,
        max_position_embeddings=CONTEXT,
    )
    rubrics = read_rubrics(["core", "prescriptive"])
    build(folder, shape, [rubric.text for rubric in rubrics] * 3, [], seed=0)
    group = [
        make_trajectory(f"g/{n}", group="g", turns=(make_turn(text),))
        for n, text in enumerate(["I look.", "I see.", "I see."])
    ]
    with Journal(tmp_path / "journal.sqlite") as journal:
        asyncio.run(judged(folder, journal, group))
    assert [p for p in multiprocessing.active_children() if p.name == "EngineCore"] == []


async def judged(folder: Path, journal: Journal, group: list[Trajectory]) -> None:
    version = 0
    engine = VllmEngine(str(folder), EngineConfig(), max_model_len=CONTEXT)
    try:
        judge = PolicyJudge(
            engine,
            Chat(HFTokenizer(folder), DIALECTS["qwen3_coder"]),
            version=lambda: version,
            temperature=1.0,
            max_context=CONTEXT,
        )
        config = JudgeConfig(max_tokens=16, tries=TRIES)
        arbiter = Arbiter(judge, config, journal)
        critic = PairwiseCritic(arbiter, read_rubrics(["core", "prescriptive"]), PairwiseConfig())

        with pytest.raises(Abstain, match="no verdict on g/"):
            await critic(group)
        metrics = critic.metrics(1)
        # The first comparison without a verdict ends the others, some of them on their way.
        assert metrics["judge/calls"] >= metrics["judge/no_verdict"] >= TRIES
        assert metrics["judge/abstained"] >= 1 and metrics["judge/failed"] == 0
        kept = journal.judgements("g")
        assert len(kept) == metrics["judge/no_verdict"]
        assert sum(k.opinion.output_tokens for k in kept) == metrics["judge/output_tokens"]
        for judgement in kept:
            turn = judgement.opinion.turn
            assert turn is not None and judgement.choice is None
            assert judgement.opinion.judge == "policy@0/t=1"
            assert len(turn.token_ids) == len(turn.logprobs) == judgement.opinion.output_tokens
            assert all(logprob < 0 for logprob in turn.logprobs)

        again = PairwiseCritic(Arbiter(judge, config, journal), critic.mandatory, PairwiseConfig())
        with pytest.raises(Abstain):
            await again(group)
        assert again.metrics(1)["judge/remembered"] >= TRIES

        version = 1
        with pytest.raises(EngineError, match="weights 0, not 1"):
            await critic([replace(t, step=2) for t in group])
        assert critic.metrics(2)["judge/failed"] >= 1
    finally:
        await engine.close()
