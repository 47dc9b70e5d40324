"""A reward of one's own over episodes that were recorded: no engine, no box, no training.

.venv/bin/python examples/own_reward.py [runs/tiny]
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from palestra.rewards.score import Scheme, Weighted, score
from palestra.rl.journal import Journal
from palestra.rl.types import Message, Outcome, Sandbox, Stop, Trajectory, Turn, Verdict


async def brief(trajectory: Trajectory, box: Sandbox | None, *, most: int = 5) -> float:
    """1.0 for one turn, falling to 0.0 at ``most``; only for who has solved the task."""
    if not trajectory.verdict or not trajectory.verdict.solved:
        return 0.0
    return max(0.0, 1.0 - (len(trajectory.turns) - 1) / (most - 1))


def made_up() -> Path:
    """A journal with one episode, for those who have no run yet."""
    turn = Turn(
        context_ids=(1, 2),
        token_ids=(3,),
        logprobs=(-0.5,),
        version=0,
        message=Message(role="assistant", content="done"),
        observation="",
    )
    played = Trajectory(
        id="00001/0000/000",
        group_id="00001/0000",
        task_id="made/up",
        step=1,
        prompt=(Message(role="user", content="Do it."),),
        turns=(turn,),
        stop=Stop.SUBMITTED,
        outcome=Outcome.GRADED,
        temperature=1.0,
        verdict=Verdict(outcome=Outcome.GRADED, passed={"check": True}),
    )
    run = Path(tempfile.mkdtemp())
    with Journal(run / "journal.sqlite") as journal:
        journal.add_trajectory(played)
    return run


run = Path(sys.argv[1]) if sys.argv[1:] else made_up()
scheme = Scheme({"brief": Weighted(reward=brief)})
with Journal(run / "journal.sqlite", read_only=True) as journal:
    for episode in journal.trajectories(journal.last_step() or 1):
        scored = asyncio.run(score(episode, None, scheme))
        print(episode.id, "reward", scored.reward and scored.reward.total)
