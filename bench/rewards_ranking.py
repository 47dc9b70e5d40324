"""How many replies of a judge it takes to find an order.

    .venv/bin/python bench/rewards.py ranking

Groups of responses with a planted order are ranked by the pairwise critic as in a run: questions,
fences, verdicts, both orders, and a seed for every reply. Only the model is replaced, by one whose
every verdict is right with a probability of 75 %, however far apart the two responses are.
Kendall's tau is between the rewards and the planted order, -1 to 1; equal rewards count as no
agreement.
"""

from __future__ import annotations

import asyncio
import random
import statistics
from collections.abc import Sequence
from itertools import combinations

from palestra.rewards.config import JudgeConfig, PairwiseConfig
from palestra.rewards.judging.arbiter import Arbiter
from palestra.rewards.judging.fake import MemoryStore, RuleJudge, quoted_in, verdict
from palestra.rewards.judging.pairwise import PairwiseCritic
from palestra.rewards.judging.rubrics import read_rubrics
from palestra.rl.types import Message, Outcome, Stop, Trajectory, Turn

ACCURACY = 0.75
TARGET = 0.9
ROUGH = (
    (8, PairwiseConfig(), 200),
    (16, PairwiseConfig(), 200),
)
"""Responses in a group, who meets whom how often, and how many groups."""
RELIABLE = (
    (8, PairwiseConfig(repeats=6), 200),
    (16, PairwiseConfig(repeats=6, all_pairs_up_to=16), 50),
)
"""The same, with as many replies as the target takes."""


def figures() -> dict[str, dict[str, object]]:
    """Kendall's tau by size of the group and replies of the judge."""
    found: dict[str, dict[str, object]] = {}
    for planned in (*ROUGH, *RELIABLE):
        found |= asyncio.run(ranked(*planned, has_target=planned in RELIABLE))
    return found


async def ranked(
    size: int, pairwise: PairwiseConfig, groups: int, *, has_target: bool
) -> dict[str, dict[str, object]]:
    """Kendall's tau over many groups, and the replies that one group took."""
    taus, replies = [], 0
    for number in range(groups):
        judge = RuleJudge(noisy)
        arbiter = Arbiter(judge, JudgeConfig(), MemoryStore(), seed=number)
        critic = PairwiseCritic(arbiter, read_rubrics(["core"]), pairwise)
        rewards = await critic(group(size, number))
        taus.append(kendall_tau([reward.total for reward in rewards]))
        replies = len(judge.seeds)
    name = f"{size} responses, {replies} replies"
    mean = statistics.fmean(taus)
    how = f"mean over {groups} groups"
    target = {"target": f">= {TARGET}", "met": mean >= TARGET} if has_target else {}
    return {
        f"{name}: Kendall tau": {"value": mean, "unit": "", "target": "", "how": how, **target},
        f"{name}: worst of 20 groups": {
            "value": statistics.quantiles(taus, n=20)[0],
            "unit": "",
            "target": "",
            "how": "5 % of the groups have a lower Kendall tau",
        },
    }


def noisy(messages: Sequence[Message], seed: int) -> str:
    """Prefers the response with the higher number, three times out of four."""
    quoted = quoted_in(messages)
    right = "first" if int(quoted["first"]) > int(quoted["second"]) else "second"
    wrong = "second" if right == "first" else "first"
    draw = random.Random(f"{seed}/{sorted(quoted.items())}/{right}").random()
    return verdict(messages, right if draw < ACCURACY else wrong)


def kendall_tau(scores: Sequence[float]) -> float:
    """Between the scores and the order of their places."""
    pairs = list(combinations(scores, 2))
    return sum((low < high) - (low > high) for low, high in pairs) / len(pairs)


def group(size: int, number: int) -> list[Trajectory]:
    """Responses whose text is their place in the planted order."""
    return [
        Trajectory(
            id=f"{number}/{place}",
            group_id=str(number),
            task_id="planted",
            step=1,
            prompt=(Message(role="user", content="Write a high number."),),
            turns=(reply(str(place)),),
            stop=Stop.SUBMITTED,
            outcome=Outcome.GRADED,
            temperature=1.0,
        )
        for place in range(size)
    ]


def reply(text: str) -> Turn:
    """A turn with this text."""
    message = Message(role="assistant", content=text)
    return Turn(context_ids=(), token_ids=(), logprobs=(), version=0, message=message)
