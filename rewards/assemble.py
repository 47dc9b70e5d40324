"""The scheme of a run: what the environment names, and what its recipe changes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from palestra.rewards import compose
from palestra.rewards.bind import bound, keywords_of
from palestra.rewards.config import RewardEntry, RewardsConfig
from palestra.rewards.isolated import Isolated, IsolatedGroup, Limits
from palestra.rewards.judging.arbiter import Arbiter
from palestra.rewards.kinds import AnyReward, RewardFactory, gives_group, is_group, name_of
from palestra.rewards.load import load
from palestra.rewards.registry import REWARDS
from palestra.rewards.score import Scheme, Weighted
from palestra.rl.errors import UserError

OURS = "palestra."
"""How modules begin whose rewards run in this process."""
GIVEN_ELSEWHERE = ("arbiter",)
"""What a reward in a process of its own may ask for beside its options."""
GIVEN = ("task_of", "pairwise", *GIVEN_ELSEWHERE)
"""What rewards of ours may ask for."""


def assemble(
    config: RewardsConfig, environment: Mapping[str, Weighted], given: Mapping[str, object]
) -> Scheme:
    """The scheme that ``config`` makes of an environment's rewards; ``given`` as in ``bound``.

    Raises ``UserError`` for rewards that are not there or not right, and for no reward at all.
    """
    parts = {
        name: _named(name, part, config)
        for name, part in environment.items()
        if config.environment and name not in config.use
    }
    for name, entry in config.use.items():
        parts[name] = _entry(name, entry, environment, config, given)
    if not parts:
        raise UserError("rewards.environment = false leaves no reward; name some in rewards.use")
    if unknown := [gate for gate in config.gates if gate not in parts]:
        raise UserError(f"rewards.gates: no part {unknown[0]!r}; there are: {', '.join(parts)}")
    order = [name for name in environment if name in parts]
    order += [name for name in parts if name not in environment]
    return Scheme({name: parts[name] for name in order}, _rule(config))


async def close(scheme: Scheme) -> None:
    """End the processes of the scheme's rewards."""
    for part in scheme.parts.values():
        if isinstance(part.reward, Isolated | IsolatedGroup):
            await part.reward.close()


def found(name: str, entry: RewardEntry) -> tuple[AnyReward | RewardFactory, str]:
    """What an entry names, and where it is from: ``module:function``, empty for ours."""
    wanted = entry.function or name
    if ":" in wanted:
        thing = load(wanted)
        return thing, "" if wanted.startswith(OURS) else wanted
    if wanted in REWARDS.ours:
        return REWARDS.ours[wanted], ""
    return REWARDS.find(wanted), REWARDS.plugins()[wanted].value


def check_functions(config: RewardsConfig) -> None:
    """Raise ``UserError`` for functions that a recipe names and that are not there, make no reward
    or ask for what they are not given: before any work, when the environment is not known yet."""
    for name, entry in config.use.items():
        if entry.function:
            thing, spec = found(name, entry)
            given = dict.fromkeys(GIVEN_ELSEWHERE if spec else GIVEN)
            keywords_of(name, thing, entry.options, given)
            gives_group(thing)


def _entry(
    name: str,
    entry: RewardEntry,
    environment: Mapping[str, Weighted],
    config: RewardsConfig,
    given: Mapping[str, object],
) -> Weighted:
    if not entry.function and name in environment:
        if entry.options:
            raise UserError(f"rewards.use.{name}: the environment's own reward has no options")
        deadline = entry.deadline or environment[name].deadline
        part = replace(environment[name], weight=entry.weight, deadline=deadline)
        return _named(name, part, config)
    thing, spec = found(name, entry)
    if spec:
        return _apart(name, spec, thing, entry, config, given)
    reward = bound(name, thing, entry.options, given)
    is_group(reward)
    return Weighted(reward=reward, weight=entry.weight, deadline=entry.deadline or config.deadline)


def _named(name: str, part: Weighted, config: RewardsConfig) -> Weighted:
    """A part that an environment names: as it is where it is ours."""
    spec = name_of(part.reward)
    if spec.startswith(OURS):
        return replace(part, deadline=part.deadline or config.deadline)
    if "<" in spec or not hasattr(part.reward, "__qualname__"):
        raise UserError(f"reward {name} ({spec}) must be a function at the top of a module")
    entry = RewardEntry(weight=part.weight, deadline=part.deadline)
    return _apart(name, spec, part.reward, entry, config, {})


def _apart(
    name: str,
    spec: str,
    thing: AnyReward | RewardFactory,
    entry: RewardEntry,
    config: RewardsConfig,
    given: Mapping[str, object],
) -> Weighted:
    """A reward of others, in processes of its own, which keep the deadline."""
    offered = {key: given[key] for key in GIVEN_ELSEWHERE if key in given}
    keywords = keywords_of(name, thing, entry.options, offered)
    arbiter = keywords.get("arbiter")
    assert arbiter is None or isinstance(arbiter, Arbiter)
    limits = Limits(
        seconds=entry.deadline or config.deadline,
        workers=config.workers,
        memory=config.memory_mb << 20,
    )
    made = IsolatedGroup if gives_group(thing) else Isolated
    reward = made(name, spec, entry.options, limits, arbiter)
    return Weighted(reward=reward, weight=entry.weight)


def _rule(config: RewardsConfig) -> compose.Rule:
    if config.rule == "gated":
        return compose.gated(config.gates)
    rules = {
        "weighted": compose.weighted,
        "minimum": compose.minimum,
        "first_failing": compose.first_failing,
    }
    return rules[config.rule]
