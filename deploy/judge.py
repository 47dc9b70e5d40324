"""The judge of a run, from its configuration: who it is, that it can be reached, what it costs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from palestra.deploy.config import RunConfig
from palestra.rewards.judging.arbiter import Arbiter
from palestra.rewards.judging.endpoint import EndpointJudge
from palestra.rewards.judging.pairwise import PairwiseCritic
from palestra.rewards.kinds import AnyReward
from palestra.rewards.score import Scheme
from palestra.rl.journal import Journal
from palestra.rl.types import Judge, Policy
from palestra.rollout.judge import PolicyJudge
from palestra.rollout.tokens import Chat


def make_arbiter(
    config: RunConfig,
    chat: Chat,
    engine: Policy,
    journal: Journal,
    version: Callable[[], int],
) -> Arbiter:
    """Questions to the judge that ``rewards.judge`` names; nothing is connected yet. ``version`` is
    that of the weights which ``engine`` has."""
    settings = config.rewards.judge
    judge: Judge
    if settings.kind == "endpoint":
        judge = EndpointJudge(settings.endpoint, temperature=settings.temperature)
    else:
        judge = PolicyJudge(
            engine,
            chat,
            version=version,
            temperature=settings.temperature,
            max_context=config.rollout.max_context_length,
        )
    return Arbiter(judge, settings, journal, seed=config.seed)


@asynccontextmanager
async def reachable_judges(scheme: Scheme) -> AsyncIterator[None]:
    """Within, the judges that rewards ask have answered once; raises ``UserError`` where one does
    not, before anything is played."""
    judges = {arbiter.judge for arbiter in _arbiters(scheme)}
    endpoints = [judge for judge in judges if isinstance(judge, EndpointJudge)]
    try:
        for judge in endpoints:
            await judge.check()
        yield
    finally:
        for judge in endpoints:
            await judge.close()


def judge_metrics(scheme: Scheme) -> Callable[[int], Mapping[str, float]]:
    """Cost and bias of the judges that the rewards of a scheme ask, by step."""

    def metrics(step: int) -> Mapping[str, float]:
        rewards = [part.reward for part in scheme.parts.values()]
        critics = [reward for reward in rewards if isinstance(reward, PairwiseCritic)]
        asked: list[Arbiter | PairwiseCritic] = [*_arbiters(scheme), *critics]
        return {name: value for one in asked for name, value in one.metrics(step).items()}

    return metrics


def arbiter_of(reward: AnyReward) -> Arbiter | None:
    """Whom a reward asks; None where it asks nobody."""
    arbiter = getattr(reward, "arbiter", None)
    return arbiter if isinstance(arbiter, Arbiter) else None


def _arbiters(scheme: Scheme) -> list[Arbiter]:
    found = (arbiter_of(part.reward) for part in scheme.parts.values())
    return [arbiter for arbiter in found if arbiter]
