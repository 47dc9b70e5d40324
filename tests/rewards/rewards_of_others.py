"""Rewards as others may write them, good and bad; they are run in processes of their own.

Every bad one is bad for the episode ``bad`` alone.
"""

import asyncio
import ctypes
import os
import sys
import time

from palestra.rewards.judging.arbiter import Decider
from palestra.rewards.judging.questions import MEETS, Response, check
from palestra.rewards.judging.rubrics import Rubric
from palestra.rl.errors import Abstain
from palestra.rl.types import GroupRewardFn, Reward

RUBRICS = [Rubric(id="good", text="It is good.")]


async def tokens(trajectory, box, *, share: float = 1.0):
    """Generated tokens."""
    print("no answer")  # noqa: T201
    return share * trajectory.generated


async def read_all(trajectory, box):
    assert sys.stdin.read() == "" and trajectory.reason == "\ud800 half"
    return 1


async def spins(trajectory, box):
    while trajectory.id == "bad":
        pass
    return 1.0


async def blocks(trajectory, box):
    if trajectory.id == "bad":
        ctypes.PyDLL(None).sleep(600)  # holds the interpreter's lock
    return 1.0


async def waits(trajectory, box):
    await asyncio.sleep(600 if trajectory.id == "bad" else 0)
    return 1.0


async def exits(trajectory, box):
    if trajectory.id == "bad":
        os._exit(0)
    return 1.0


async def leaves(trajectory, box):
    if trajectory.id == "bad":
        sys.exit(0)
    return 1.0


async def crashes(trajectory, box):
    if trajectory.id == "bad":
        ctypes.string_at(0)
    return 1.0


async def swells(trajectory, box):
    held = []
    while trajectory.id == "bad":
        held.append(bytearray(1 << 24))
    return 1.0


async def raises(trajectory, box):
    return 1.0 / (trajectory.id != "bad")


async def nan(trajectory, box):
    return float("nan") if trajectory.id == "bad" else 1.0


async def text(trajectory, box):
    return "1.0" if trajectory.id == "bad" else 1.0


async def huge(trajectory, box):
    return 10**400 if trajectory.id == "bad" else 1.0


async def nothing(trajectory, box):
    return None if trajectory.id == "bad" else 1.0


async def answers_itself(trajectory, box):
    if trajectory.id == "bad":
        for number in range(3, 64):
            try:
                os.write(number, b'{"value": NaN}\n')
            except OSError:
                continue
    return 1.0


async def floods(trajectory, box):
    if trajectory.id == "bad":
        for number in range(3, 64):
            try:
                os.write(number, b"x" * (1 << 21))
            except OSError:
                continue
    return 1.0


async def silent(trajectory, box):
    raise Abstain("nothing to say")


async def shortest(trajectories):
    """1 for the shortest of siblings."""
    least = min(t.generated for t in trajectories)
    return [
        Reward(total=float(t.generated == least), parts={"tokens": float(t.generated)})
        for t in trajectories
    ]


async def one_short(trajectories):
    return [Reward(total=1.0, parts={})]


async def hangs_together(trajectories):
    time.sleep(600)  # noqa: ASYNC251


class Longer:
    """1.0 above so many tokens."""

    def __init__(self, *, than: int):
        self.than = than
        1 / (than + 1)

    async def __call__(self, trajectory, box):
        return float(trajectory.generated > self.than)


def ranked(*, best: float = 1.0) -> GroupRewardFn:
    """A factory of a reward of groups."""

    async def judged(trajectories):
        return [Reward(total=best / place, parts={}) for place, _ in enumerate(trajectories, 1)]

    return judged


class Judged:
    """How often a judge says that an episode meets a rubric, of so many times at once."""

    def __init__(self, *, arbiter: Decider, times: int = 3):
        self.arbiter = arbiter
        self.times = times

    async def __call__(self, trajectory, box):
        said = Response(id=trajectory.id, text=trajectory.id)
        asked = check("Be good.", said, RUBRICS, step=99, group_id="made up")
        replies = [self.arbiter.decide(asked, repeat=number) for number in range(self.times)]
        choices = [(await reply).choice for reply in asyncio.as_completed(replies)]
        return choices.count(MEETS) / self.times


def wants_a_judge(*, judge) -> GroupRewardFn:
    raise NotImplementedError


def says_nothing(*, best=1.0):
    raise NotImplementedError


def plain(trajectory, box):
    return 1.0
