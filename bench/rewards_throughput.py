"""How many rewards a second: those that run in the process of the run, and those that run apart.

A reward is one part of one episode, with its deadline, its check and its provenance, as in a run.
Rates in process are by processor time of one core, so that others on the machine do not count;
what processes of their own cost is by the clock.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from palestra.envs.diff import diff_of
from palestra.rewards.assemble import assemble, close
from palestra.rewards.config import RewardsConfig
from palestra.rewards.score import Scheme, score
from palestra.rl.types import (
    AnswerCheck,
    Message,
    Outcome,
    Stop,
    Task,
    Trajectory,
    Turn,
    Verdict,
)

EPISODES = 5_000
ROUNDS = 3
TARGET = 10_000.0
PLAIN = ("tests_pass", "tests_fraction", "well_formed", "submitted", "within_budget")
ANSWERS = ("exact", "numeric", "diff_size", "patch_applies")
OF_OTHERS = "async def own(trajectory, box):\n    return float(len(trajectory.turns))\n"

TASK = Task(
    id="task",
    source="bench",
    kind="bench",
    prompt="",
    files={},
    reference={},
    artifacts=("answer.txt",),
    hidden=(AnswerCheck(id="one", verifier="numeric", expected="1/8"),),
)


def figures() -> dict[str, dict[str, object]]:
    """All figures of this part."""
    plain = asyncio.run(rate_of(scheme_of(*PLAIN)))
    answers = asyncio.run(rate_of(scheme_of(*ANSWERS)))
    return {
        "rewards in process, of verdict and episode": figure(plain, TARGET),
        "rewards in process, of answer and diff": figure(answers, TARGET),
        "rewards in processes of their own": figure(asyncio.run(apart())),
    }


def figure(value: float, target: float = 0.0) -> dict[str, object]:
    shown = f">= {target:,.0f}" if target else ""
    met = value >= target if target else None
    return {"value": round(value), "unit": "1/s", "target": shown, "met": met}


def scheme_of(*names: str) -> Scheme:
    config = RewardsConfig.model_validate({"use": {name: {} for name in names}})
    return assemble(config, {}, {"task_of": {"task": TASK}.__getitem__})


def episodes(count: int) -> list[Trajectory]:
    """Of four turns with 200 tokens each and eight hidden checks."""
    turn = Turn(
        context_ids=tuple(range(100)),
        token_ids=tuple(range(100)),
        logprobs=(-0.1,) * 100,
        version=0,
        message=Message(role="assistant", content="x" * 300),
        observation="ok",
    )
    one = Trajectory(
        id="",
        group_id="g",
        task_id="task",
        step=1,
        prompt=(Message(role="user", content="x" * 1000),),
        turns=(turn,) * 4,
        stop=Stop.SUBMITTED,
        outcome=Outcome.GRADED,
        temperature=1.0,
        verdict=Verdict(outcome=Outcome.GRADED, passed={f"c{n}": True for n in range(8)}),
        patch=diff_of(TASK, {"answer.txt": b"0.125"}),
    )
    return [replace(one, id=str(number)) for number in range(count)]


async def rate_of(scheme: Scheme) -> float:
    """Rewards per second of one core; the best of some rounds."""
    played = episodes(EPISODES)
    rates = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for episode in played:
            scored = await score(episode, None, scheme)
            assert scored.reward and len(scored.reward.parts) == len(scheme.parts)
        rates.append(len(played) * len(scheme.parts) / (time.process_time() - began))
    return max(rates)


async def apart() -> float:
    """Rewards per second by the clock, with two processes, which are there already."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "bench_rewards_of_others.py").write_text(OF_OTHERS)
        sys.path.append(folder)
        use = {"own": {"function": "bench_rewards_of_others:own"}}
        scheme = assemble(RewardsConfig.model_validate({"use": use}), {}, {})
        played = episodes(500)
        try:
            await asyncio.gather(*(score(episode, None, scheme) for episode in played[:4]))
            began = time.perf_counter()
            await asyncio.gather(*(score(episode, None, scheme) for episode in played))
            return len(played) / (time.perf_counter() - began)
        finally:
            await close(scheme)
            sys.path.remove(folder)
