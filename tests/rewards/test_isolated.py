"""Rewards of others run in processes of their own; a bad one costs its own sample alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from palestra.rewards.assemble import assemble, check_functions, close
from palestra.rewards.config import RewardsConfig
from palestra.rewards.score import RewardError, Scheme, Weighted, rate, score
from palestra.rewards.wire import packed, unpacked
from palestra.rl.errors import UserError
from palestra.rl.types import Provenance, Reward, Routing, Trajectory

MakeTrajectory = Callable[..., Trajectory]


def config_of(function: str, **entry: Any) -> RewardsConfig:
    use = {"x": {"function": function, "deadline": 20.0, **entry}}
    return RewardsConfig.model_validate({"workers": 1, "memory_mb": 1024, "use": use})


def scheme_of(function: str, **entry: Any) -> Scheme:
    return assemble(config_of(function, **entry), {}, {})


def totals(scheme: Scheme, *episodes: Trajectory) -> list[float | str]:
    """The total of each episode, all at once, or why it has none."""

    async def one(episode: Trajectory) -> float | str:
        try:
            reward = (await score(episode, None, scheme)).reward
        except RewardError as error:
            return str(error)
        return reward.total if reward else "none"

    async def run() -> list[float | str]:
        try:
            return await asyncio.gather(*map(one, episodes))
        finally:
            await close(scheme)

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("name", "deadline", "says"),
    [
        ("spins", 2.0, "no answer within 2 s"),
        ("blocks", 2.0, "no answer within 2 s"),
        ("waits", 2.0, "no answer within 2 s"),
        ("exits", 20.0, "its process ended with 0"),
        ("leaves", 20.0, "SystemExit: 0"),
        ("crashes", 20.0, "its process was ended by SIGSEGV"),
        ("swells", 20.0, "MemoryError"),
        ("raises", 20.0, "ZeroDivisionError: float division by zero (rewards_of_others.py:"),
        ("nan", 20.0, "nan is not a finite number"),
        ("text", 20.0, "a str is not a number"),
        ("huge", 20.0, "inf is not a finite number"),
        ("nothing", 20.0, "a NoneType is not a number"),
        ("answers_itself", 20.0, "an answer to something else"),
        ("floods", 20.0, "an answer of more than"),
    ],
)
def test_a_bad_reward_costs_its_own_sample(
    others: str, name: str, deadline: float, says: str, make_trajectory: MakeTrajectory
) -> None:
    # One process: what is left of the bad episode meets the next.
    scheme = scheme_of(f"{others}:{name}", deadline=deadline)
    good, bad, *rest = totals(scheme, *map(make_trajectory, ("good", "bad", "next", "last")))
    assert [good, *rest] == [1.0, 1.0, 1.0]
    assert isinstance(bad, str) and bad.startswith("reward x: ") and says in bad


def test_an_episode_arrives_as_it_was_but_for_its_routing(
    make_trajectory: MakeTrajectory,
) -> None:
    by = Provenance(verifier="v", version="1", evidence="e")
    reward = Reward(total=1.0, parts={"a": float("1e-9")}, provenance={"a": by})
    sent = replace(make_trajectory(), reason="\ud800 \n", abstained={"b": "no"}, reward=reward)
    routed = Routing(layers=1, top_k=1, item_bytes=1, experts=b"\xff\0\0\0")
    turns = tuple(replace(turn, routing=routed) for turn in sent.turns)
    line = packed([replace(sent, turns=turns), sent])
    assert unpacked(line) == ([sent, sent], "") and b"\n" not in line


def test_rewards_of_others_get_the_whole_episode_and_their_options(
    others: str, make_trajectory: MakeTrajectory
) -> None:
    episode = replace(make_trajectory(), reason="\ud800 half")
    assert totals(scheme_of(f"{others}:read_all"), episode) == [1.0]
    halved = scheme_of(f"{others}:tokens", options={"share": 0.5}, weight=2.0)
    assert totals(halved, episode) == [3.0]
    assert totals(scheme_of(f"{others}:Longer", options={"than": 2}), episode) == [1.0]
    made = totals(scheme_of(f"{others}:Longer", options={"than": -1}), episode)
    assert "it cannot be made: ZeroDivisionError" in str(made)

    async def silent() -> Trajectory:
        scheme = scheme_of(f"{others}:silent")
        try:
            return await score(episode, None, scheme)
        finally:
            await close(scheme)

    scored = asyncio.run(silent())
    assert scored.reward is None and scored.abstained == {"x": "nothing to say"}


def test_groups_are_rated_in_other_processes_too(
    others: str, make_trajectory: MakeTrajectory
) -> None:
    siblings = [make_trajectory("long", turns=make_trajectory().turns * 2), make_trajectory("b")]

    async def rated(name: str, **entry: Any) -> list[dict[str, float]]:
        scheme = scheme_of(f"{others}:{name}", **entry)
        try:
            scored = [await score(t, None, scheme) for t in siblings]
            assert [t.reward for t in scored] == [None, None]
            found = await rate(scored, scheme)
        finally:
            await close(scheme)
        by = {b.version for t in found if t.reward for b in t.reward.provenance.values()}
        assert by == {others}
        return [dict(t.reward.parts) for t in found if t.reward]

    parts = asyncio.run(rated("shortest"))
    assert parts == [{"x": 0.0, "x/tokens": 6.0}, {"x": 1.0, "x/tokens": 3.0}]
    assert asyncio.run(rated("ranked", options={"best": 4.0})) == [{"x": 4.0}, {"x": 2.0}]
    for name, deadline, says in (
        ("one_short", 20.0, "not a list of 2 rewards"),
        ("hangs_together", 0.25, "no answer within 0.5 s"),
    ):
        with pytest.raises(RewardError, match=says):
            asyncio.run(rated(name, deadline=deadline))


@pytest.mark.parametrize(
    ("function", "options", "says"),
    [
        ("rewards_of_others:absent", {}, "has no attribute 'absent'"),
        ("no_such_module:x", {}, "No module named 'no_such_module'"),
        ("rewards_of_others:", {}, "reward rewards_of_others:"),
        ("rewards_of_others:os", {}, "cannot be called"),
        ("rewards_of_others:plain", {}, "neither is nor says that it makes a reward"),
        ("rewards_of_others:says_nothing", {}, "neither is nor says that it makes a reward"),
        ("rewards_of_others:tokens", {"most": 1}, "reward x has no option 'most'; it has: share"),
        ("rewards_of_others:tokens", {"share": "much"}, "option share = 'much': should be a valid"),
        ("rewards_of_others:Longer", {}, "reward x asks for 'than'"),
        ("rewards_of_others:wants_a_judge", {}, "reward x asks for 'judge'"),
        ("rewards_of_others:Judged", {"arbiter": "me"}, "'arbiter'"),
        ("few", {}, "no reward 'few'; there are: tests_pass"),
    ],
)
def test_what_is_no_reward_is_refused_before_anything_is_played(
    others: str, function: str, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        scheme_of(function, options=options)
    with pytest.raises(UserError, match=says):
        check_functions(config_of(function, options=options))


def test_an_environment_s_own_reward_runs_apart_as_well(
    others: str, tmp_path: Path, make_trajectory: MakeTrajectory
) -> None:
    import importlib

    module = importlib.import_module(others)
    config = RewardsConfig(deadline=2.0, workers=1)
    named = {"spins": Weighted(reward=module.spins), "tokens": Weighted(reward=module.tokens)}
    bad, good = totals(assemble(config, named, {}), *map(make_trajectory, ("bad", "good")))
    assert good == 4.0 and bad == "reward spins: no answer within 2 s"

    async def inner(trajectory: Trajectory, box: object) -> float:
        return 1.0

    with pytest.raises(UserError, match="must be a function at the top of a module"):
        assemble(config, {"inner": Weighted(reward=inner)}, {})
