"""The closed-loop critic of a run, and the rewards that hang on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from palestra.deploy.config import RunConfig
from palestra.deploy.judge import arbiter_of
from palestra.policies.colocate import Colocated
from palestra.rewards.config import JudgeConfig
from palestra.rewards.judging.arbiter import Arbiter
from palestra.rewards.judging.rubrics import read_rubrics
from palestra.rewards.judging.trusted import Trusted, TrustedGroup
from palestra.rewards.kinds import AnyReward, is_group, is_single
from palestra.rl.critic.loop import Critic
from palestra.rl.critic.question import WhichIsRight
from palestra.rl.critic.trust import is_trusted
from palestra.rl.journal import Journal
from palestra.rollout.episode import World
from palestra.rollout.judge import PolicyJudge


def make_critic(
    config: RunConfig,
    world: World,
    trainer: Colocated,
    journal: Journal,
    say: Callable[[str], None],
) -> Critic | None:
    """The policy as a critic that is trained; None where ``rl.critic`` is off."""
    settings, max_context = config.rl.critic, config.rollout.max_context_length
    if not settings.freq:
        return None
    judge = PolicyJudge(
        world.policy,
        world.chat,
        version=lambda: trainer.version,
        temperature=settings.temperature,
        max_context=max_context,
    )
    limits = JudgeConfig(max_tokens=settings.max_tokens, max_in_flight=config.rollout.max_in_flight)
    return Critic(
        config=settings,
        arbiter=Arbiter(judge, limits, journal, seed=config.seed),
        chat=world.chat,
        ask=WhichIsRight(read_rubrics(settings.criteria), settings.max_response_chars),
        seed=config.seed,
        max_context=max_context,
        say=say,
    )


def trusting(world: World, journal: Journal, min_accuracy: float) -> World:
    """The world, with the policy's own opinions counting only while its accuracy is known to be at
    least ``min_accuracy``; the opinions of other judges always count."""
    if not min_accuracy:
        return world
    trusts = partial(is_trusted, journal=journal, min_accuracy=min_accuracy)
    parts = {
        name: replace(part, reward=_trusting(part.reward, trusts))
        for name, part in world.scheme.parts.items()
    }
    return replace(world, scheme=replace(world.scheme, parts=parts))


def _trusting(reward: AnyReward, trusts: Callable[[int], bool]) -> AnyReward:
    """The reward as it is, unless it is the policy's own opinion."""
    arbiter = arbiter_of(reward)
    if arbiter is None or not isinstance(arbiter.judge, PolicyJudge):
        return reward
    if is_single(reward):
        return Trusted(reward, trusts)
    assert is_group(reward)
    return TrustedGroup(reward, trusts)
