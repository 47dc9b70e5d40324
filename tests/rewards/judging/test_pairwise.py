"""The pairwise critic by hand: values, order, ties, what is mandatory, what is never guessed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palestra.rewards.config import JudgeConfig, PairwiseConfig
from palestra.rewards.judging.arbiter import Arbiter, JudgeError
from palestra.rewards.judging.fake import (
    MemoryStore,
    Rule,
    RuleJudge,
    preferring,
    quoted_in,
    verdict,
)
from palestra.rewards.judging.pairwise import PairwiseCritic
from palestra.rewards.judging.questions import FIRST, SECOND, TIE
from palestra.rewards.judging.ranking import Comparison, points, scores
from palestra.rewards.judging.rubrics import Rubric, read_rubrics
from palestra.rewards.judging.schedule import pairs
from palestra.rl.errors import Abstain, InfraError
from palestra.rl.journal import Journal
from palestra.rl.types import JudgementStore, Message, Trajectory

Said = Callable[..., list[Trajectory]]
PLAIN = Rubric(id="clear", text="It is clear.")
MUST = Rubric(id="no-praise", text="It does not praise.", mandatory=True)


def critic(
    rule: Rule,
    *,
    rubrics: Sequence[Rubric] = (PLAIN,),
    store: JudgementStore | None = None,
    pairwise: PairwiseConfig | None = None,
    seed: int = 0,
    name: str = "rule",
    **judge: int,
) -> PairwiseCritic:
    known = MemoryStore() if store is None else store
    arbiter = Arbiter(RuleJudge(rule, name), JudgeConfig(**judge), known, seed=seed)
    return PairwiseCritic(arbiter, rubrics, pairwise or PairwiseConfig())


def totals(judged: PairwiseCritic, group: list[Trajectory]) -> list[float]:
    async def rewards() -> list[float]:
        return [reward.total for reward in await judged(group)]

    return asyncio.run(rewards())


def asked(judged: PairwiseCritic) -> int:
    judge = judged.arbiter.judge
    assert isinstance(judge, RuleJudge)
    return len(judge.seeds)


def test_a_ladder_is_ranked_whatever_its_order(said: Said) -> None:
    judged = critic(preferring(len))
    assert totals(judged, said("aa", "aaaa", "a", "aaa", "bb")) == [0.375, 1.0, 0.0, 0.75, 0.375]
    metrics = judged.metrics(1)
    assert metrics["judge/calls"] == asked(judged) == 5 * 4
    assert metrics["judge/comparisons"] == 10
    assert metrics["judge/first_frac"] == 0.5 and metrics["judge/contradiction_frac"] == 0.0
    assert metrics["judge/length_corr"] > 0.8


def test_each_reward_names_the_judge_and_its_share_of_the_tokens(said: Said) -> None:
    judged = critic(preferring(len), rubrics=(PLAIN, MUST))
    found = asyncio.run(judged(said("aa", "a")))
    metrics = judged.metrics(1)
    spent = metrics["judge/input_tokens"] + metrics["judge/output_tokens"]
    by = [reward.provenance["judge"] for reward in found]
    assert {one.verifier for one in by} == {judged.arbiter.judge.name}
    assert [one.evidence for one in by] == [
        "won 100% of its comparisons",
        "won 0% of its comparisons",
    ]
    assert {one.version for one in by} == {"rubrics core, prescriptive"}
    assert {one.tokens for one in by} == {spent // 2} != {0}


def test_who_prefers_a_place_has_seen_nothing_but_ties(said: Said) -> None:
    judged = critic(lambda messages, seed: verdict(messages, "first"))
    assert totals(judged, said("a", "bb", "ccc")) == [0.5, 0.5, 0.5]
    metrics = judged.metrics(1)
    assert metrics["judge/first_frac"] == 1.0 and metrics["judge/contradiction_frac"] == 1.0
    assert "judge/length_corr" not in metrics


@pytest.mark.parametrize(
    ("left_first", "right_first", "won"),
    [
        (FIRST, SECOND, 1.0),
        (SECOND, FIRST, 0.0),
        (FIRST, FIRST, 0.5),
        (SECOND, SECOND, 0.5),
        (TIE, TIE, 0.5),
        (FIRST, TIE, 0.5),
        (TIE, FIRST, 0.5),
    ],
)
def test_a_win_needs_both_orders(left_first: int, right_first: int, won: float) -> None:
    assert points(left_first, right_first) == won


def test_one_that_fails_a_mandatory_rubric_loses_without_being_compared(said: Said) -> None:
    def rule(messages: Sequence[Message], seed: int) -> str:
        quoted = quoted_in(messages)
        if "response" in quoted:
            return verdict(messages, "fails" if "Great" in quoted["response"] else "meets")
        return preferring(len)(messages, seed)

    judged = critic(rule, rubrics=[PLAIN, MUST])
    group = said("Great question! " * 9, "b", "cc", "Great!")
    assert totals(judged, group) == [1 / 3, 2 / 3, 1.0, 0.0]
    assert asked(judged) == 4 + 2 * 2, "four checks, and the two pairs of equals in both orders"
    assert judged.metrics(1)["judge/mandatory_failures"] == 2


def test_with_mandatory_rubrics_alone_equals_are_ties(said: Said) -> None:
    judged = critic(preferring(len), rubrics=[MUST])
    assert totals(judged, said("a", "bb")) == [0.5, 0.5]
    assert asked(judged) == 2


def test_the_mandatory_rubrics_are_those_of_the_report() -> None:
    rubrics = read_rubrics(["core", "prescriptive"])
    assert [r.id for r in rubrics if r.mandatory] == ["no-praise", "no-self-justification"]


def test_repeats_are_independent_and_averaged(said: Said) -> None:
    judge = critic(preferring(len), pairwise=PairwiseConfig(repeats=3))
    assert totals(judge, said("a", "bb")) == [0.0, 1.0]
    rule_judge = judge.arbiter.judge
    assert isinstance(rule_judge, RuleJudge)
    assert len(rule_judge.seeds) == len(set(rule_judge.seeds)) == 6


def test_a_group_that_was_judged_is_not_judged_again(said: Said) -> None:
    store = MemoryStore()
    group = said("a", "bb", "ccc")
    first, again = critic(preferring(len), store=store), critic(preferring(len), store=store)
    assert totals(first, group) == totals(again, group)
    assert asked(first) == 6 and asked(again) == 0
    metrics = again.metrics(1)
    assert metrics["judge/remembered"] == 6
    assert metrics["judge/calls"] == 6, "the step's judging has cost as much as before"
    other = critic(preferring(len), store=store, seed=1)
    totals(other, group)
    assert asked(other) == 6, "another seed asks anew"


def test_what_several_wrote_is_judged_once(said: Said) -> None:
    judged = critic(preferring(len), rubrics=[PLAIN, MUST])
    assert totals(judged, said("bb", "a", "bb", "a")) == [5 / 6, 1 / 6, 5 / 6, 1 / 6]
    # A check of each text, and the pairs (bb, a), (a, bb), (bb, bb), (a, a).
    assert asked(judged) == judged.metrics(1)["judge/calls"] == 2 + 4


def test_a_judge_without_a_verdict_is_asked_again_and_then_let_be(said: Said) -> None:
    heard: list[Sequence[Message]] = []

    def late(messages: Sequence[Message], seed: int) -> str:
        heard.append(messages)
        return "Hm." if heard.count(messages) == 1 else preferring(len)(messages, seed)

    judged = critic(late, tries=2)
    assert totals(judged, said("a", "bb")) == [0.0, 1.0]
    assert judged.metrics(1)["judge/no_verdict"] == 2

    judged = critic(lambda messages, seed: "<verdict>first</verdict>", tries=3)
    with pytest.raises(Abstain, match="no verdict on g/0, g/1 in 3 replies"):
        totals(judged, said("a", "bb"))
    metrics = judged.metrics(1)
    assert metrics["judge/abstained"] >= 1 and metrics["judge/no_verdict"] >= 3


def test_a_broken_judge_is_a_fault_of_ours_and_never_a_number(said: Said) -> None:
    def broken(messages: Sequence[Message], seed: int) -> str:
        raise OSError("no route")

    judged = critic(broken)
    with pytest.raises(JudgeError, match="judge rule: OSError: no route"):
        totals(judged, said("a", "bb"))
    assert issubclass(JudgeError, InfraError)
    assert judged.metrics(1)["judge/failed"] >= 1


@pytest.mark.parametrize("limit", [{"calls_per_step": 6}, {"tokens_per_step": 6 * 110}])
def test_a_spent_budget_abstains_in_that_step_alone(said: Said, limit: dict[str, int]) -> None:
    judged = critic(preferring(len), max_in_flight=1, **limit)

    async def steps() -> None:
        await judged(said("a", "bb", "ccc"))
        with pytest.raises(Abstain, match="step 1 is spent"):
            await judged(said("d", "ee", group="h"))
        assert judged.metrics(1)["judge/over_budget"] >= 1
        assert asked(judged) == 6
        later = await judged(said("d", "ee", group="i", step=2))
        assert [reward.total for reward in later] == [0.0, 1.0]

    asyncio.run(steps())


@pytest.mark.parametrize("limit", [{"calls_per_step": 6}, {"tokens_per_step": 6 * 110}])
def test_a_step_that_goes_on_after_a_kill_has_no_second_budget(
    said: Said, tmp_path: Path, limit: dict[str, int]
) -> None:
    with Journal(tmp_path / "journal.sqlite") as journal:
        totals(critic(preferring(len), store=journal, **limit), said("a", "bb", "ccc"))
        again = critic(preferring(len), store=journal, **limit)
        with pytest.raises(Abstain, match="step 1 is spent"):
            totals(again, said("d", "ee", group="h"))
        assert asked(again) == 0 and totals(again, said("a", "bb", "ccc")) == [0.0, 0.5, 1.0]
        other = critic(preferring(len), store=journal, name="other", **limit)
        assert totals(other, said("d", "ee", group="h")) == [0.0, 1.0], "another judge's budget"


def test_no_more_than_so_many_wait_for_the_judge(said: Said) -> None:
    judged = critic(preferring(len), max_in_flight=3)
    totals(judged, said(*"abcdefg"))
    judge = judged.arbiter.judge
    assert isinstance(judge, RuleJudge) and judge.waiting_at_most == 3


def test_one_alone_has_no_rank(said: Said) -> None:
    with pytest.raises(Abstain, match="two responses"):
        totals(critic(preferring(len)), said("a"))


@given(size=st.integers(2, 40), limit=st.integers(2, 12), half=st.integers(1, 4))
def test_the_schedule_is_fair_and_links_everyone(size: int, limit: int, half: int) -> None:
    met = pairs(size, all_up_to=limit, opponents=2 * half, seed="g")
    assert len(met) == len(set(met)) and all(0 <= a < b < size for a, b in met)
    degrees = [sum(i in pair for pair in met) for i in range(size)]
    everyone = size <= max(limit, 2 * half + 1)
    assert set(degrees) == {size - 1 if everyone else 2 * half}
    linked = {0}
    for _ in range(size):
        linked |= {i for pair in met for i in pair if linked & set(pair)}
    assert linked == set(range(size))


@given(size=st.integers(2, 9), data=st.data())
def test_scores_are_shares_with_mean_one_half(size: int, data: st.DataObject) -> None:
    met = pairs(size, all_up_to=9, opponents=2, seed="g")
    won = [data.draw(st.sampled_from([0.0, 0.5, 1.0])) for _ in met]
    compared = [Comparison(left=a, right=b, points=p) for (a, b), p in zip(met, won, strict=True)]
    found = scores(size, compared)
    assert sum(found) == pytest.approx(size / 2)
    by_hand = sum(
        p if a == 0 else 1 - p for (a, b), p in zip(met, won, strict=True) if 0 in (a, b)
    ) / (size - 1)
    assert found[0] == pytest.approx(by_hand)
