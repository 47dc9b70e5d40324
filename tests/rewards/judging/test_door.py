"""A reward in a process of its own asks the judge of the run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from palestra.deploy.judge import judge_metrics
from palestra.rewards.assemble import assemble, check_functions, close
from palestra.rewards.config import JudgeConfig, RewardsConfig
from palestra.rewards.judging.arbiter import Arbiter
from palestra.rewards.judging.fake import MemoryStore, RuleJudge, quoted_in, verdict
from palestra.rewards.score import RewardError, Scheme, score
from palestra.rl.errors import UserError
from palestra.rl.types import Message, Opinion, Trajectory

MakeTrajectory = Callable[..., Trajectory]


class PatientJudge(RuleJudge):
    """Meets what is good, fails what is bad, and says nothing of what is slow."""

    def __init__(self) -> None:
        super().__init__(_said)
        self.left = 0

    async def ask(self, messages: Sequence[Message], *, max_tokens: int, seed: int = 0) -> Opinion:
        if quoted_in(messages)["response"] == "slow":
            try:
                await asyncio.sleep(600)
            finally:
                self.left += 1
        return await super().ask(messages, max_tokens=max_tokens, seed=seed)


def _said(messages: Sequence[Message], seed: int) -> str:
    response = quoted_in(messages)["response"]
    if response == "broken":
        raise OSError("no route")
    return f"Half a \ud800.\n{verdict(messages, 'meets' if response == 'good' else 'fails')}"


async def _totals(scheme: Scheme, episodes: Sequence[Trajectory]) -> list[float | str]:
    found: list[float | str] = []
    for episode in episodes:
        try:
            scored = await score(episode, None, scheme)
        except RewardError as error:
            found.append(str(error))
        else:
            found.append(scored.reward.total if scored.reward else scored.abstained["x"])
    return found


def test_a_reward_elsewhere_asks_through_the_arbiter_of_the_run(
    others: str, make_trajectory: MakeTrajectory
) -> None:
    use = {"x": {"function": f"{others}:Judged", "deadline": 5.0}}
    config = RewardsConfig.model_validate({"workers": 1, "use": use})
    check_functions(config)
    store, judge = MemoryStore(), PatientJudge()
    arbiter = Arbiter(judge, JudgeConfig(calls_per_step=12), store)
    names = ("good", "bad", "slow", "good", "broken", "late", "bad")
    episodes = [make_trajectory(name, group=f"of {name}", step=7) for name in names]

    async def totals() -> list[float | str]:
        scheme = assemble(config, {}, {"arbiter": arbiter, "task_of": None})
        try:
            found = await _totals(scheme, episodes)
        finally:
            await close(scheme)
        assert judge_metrics(scheme)(7) == arbiter.metrics(7)
        return found

    good, bad, slow, again, broken, late, known = asyncio.run(totals())
    assert (good, bad, again, known) == (1.0, 0.0, 1.0, 0.0)
    assert slow == "reward x: no answer within 5 s" and judge.left == 3, "it is given up"
    assert "JudgeError: judge rule: OSError: no route" in str(broken)
    assert late == "the budget of judge rule for step 7 is spent"
    assert {j.group_id for j in store.judgements_in(7)} == {"of good", "of bad"}
    assert arbiter.metrics(7)["judge/remembered"] == 6
    assert not store.judgements_in(99), "a reward does not choose whose budget it spends"


def test_it_is_told_before_anything_is_played_that_there_is_no_judge(others: str) -> None:
    config = RewardsConfig.model_validate({"use": {"x": {"function": f"{others}:Judged"}}})
    with pytest.raises(UserError, match="reward x asks for 'arbiter', which it is not given here"):
        assemble(config, {}, {})
