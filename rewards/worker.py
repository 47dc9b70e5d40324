"""The process that runs a reward of others; see ``isolated``. A line in, a line out, all JSON."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
import traceback
from pathlib import Path
from typing import IO, Any

from palestra.rewards.bind import bound
from palestra.rewards.judging.door import FarArbiter
from palestra.rewards.kinds import AnyReward, is_group, is_single
from palestra.rewards.load import load
from palestra.rewards.score import checked, number
from palestra.rewards.wire import packed, rows_of, unpacked
from palestra.rl.errors import Abstain
from palestra.rl.types import Trajectory

GRACE_S = 5.0
"""By which a process outlives its deadline where nobody is left to end it."""

LONGEST_REASON = 500


def main() -> None:
    """Answer until the input ends. The reward gets neither the input nor the output."""
    plan = json.loads(sys.argv[1])
    seconds = plan["seconds"]
    lines, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "w")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    resource.setrlimit(resource.RLIMIT_AS, (plan["memory"], plan["memory"]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    arbiter = FarArbiter()
    reward = made(plan, arbiter)
    unpacked(packed([]))  # what the first episode would have to wait for, within its deadline
    _say(answers, {})
    for line in lines:
        label, _, row = line.partition(b" ")
        trajectories, judge = unpacked(row)
        arbiter.enter(judge)
        # The kernel ends a reward that never gives way, also where the parent is gone.
        signal.setitimer(signal.ITIMER_REAL, seconds * len(trajectories) + GRACE_S)
        _say(answers, answer(reward, trajectories), label.decode())
        signal.setitimer(signal.ITIMER_REAL, 0)


def made(plan: dict[str, Any], arbiter: FarArbiter) -> AnyReward | str:
    """The reward, or why it cannot be made."""
    given = {"arbiter": arbiter} if plan["asks"] else {}
    try:
        return bound(plan["name"], load(plan["spec"]), plan["options"], given)
    except BaseException as error:  # noqa: BLE001
        return f"it cannot be made: {_reason(error)}"


def answer(reward: AnyReward | str, trajectories: list[Trajectory]) -> dict[str, Any]:
    """``{"value": ...}``, ``{"rewards": [...]}``, ``{"abstain": reason}`` or ``{"error": reason}``.

    Whatever a reward raises is its answer, an exit included.
    """
    if isinstance(reward, str):
        return {"error": reward}
    try:
        return asyncio.run(_asked(reward, trajectories))
    except Abstain as why:
        return {"abstain": str(why)}
    except BaseException as error:  # noqa: BLE001
        return {"error": _reason(error)}


async def _asked(reward: AnyReward, trajectories: list[Trajectory]) -> dict[str, Any]:
    if is_group(reward):
        return {"rewards": rows_of(checked(await reward(trajectories), len(trajectories)))}
    assert is_single(reward)
    return {"value": number(await reward(trajectories[0], None))}


def _reason(error: BaseException) -> str:
    """What it raised, and where in its own file."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "palestra" not in Path(frame.filename).parts]
    place = f" ({Path(own[-1].filename).name}:{own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {str(error)[:LONGEST_REASON]}{place}"


def _say(answers: IO[str], row: dict[str, Any], label: str = "0") -> None:
    answers.write(f"{label} {json.dumps(row)}\n")
    answers.flush()


if __name__ == "__main__":
    main()
