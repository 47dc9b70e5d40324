"""Errands put together to tasks, with the failures that their tools have in store."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence

from palestra.envs.puzzle import Slot
from palestra.envs.tool_use.actions import Action, OnRow
from palestra.envs.tool_use.errands import ERRANDS, Errand, office
from palestra.envs.tool_use.play import done, play
from palestra.envs.tool_use.state import Fault, FaultKind
from palestra.rl.types import AnswerCheck, Task

STATE = "state.json"
KIND = "tool_use"
ERRANDS_OF = {1: 1, 2: 2, 3: 3, 4: 5}
FAULTS_OF = {1: 0, 2: 1, 3: 2, 4: 4}
"""Errands, and failures of tools, by difficulty."""


def office_task(env: str, first: str, slot: Slot) -> Task:
    """A task with the errand ``first`` and, by its difficulty, others.

    ``labels["calls"]`` has the calls of the scripted player, ``labels["faults"]`` what fails.
    """
    rng = slot.random
    start = office(rng, slot.difficulty)
    others = [name for name in ERRANDS if name != first]
    names = [first, *rng.sample(others, ERRANDS_OF[slot.difficulty] - 1)]
    errands: list[Errand] = []
    end = start
    for name in rng.sample(names, len(names)):
        errands.append(ERRANDS[name](rng, end))
        end = done(end, errands[-1].deeds)
    deeds = [deed for errand in errands for deed in errand.deeds]
    start.faults = _faults(rng, play(start, deeds)[1], FAULTS_OF[slot.difficulty])
    reached, calls = play(start, deeds)
    expected = json.dumps({"before": start.content(), "after": end.content()})
    asked = "\n".join(f"{number}. {errand.asked}" for number, errand in enumerate(errands, 1))
    return Task(
        id=slot.id,
        source=env,
        kind=KIND,
        prompt=f"Do this, in this order, and nothing else:\n{asked}",
        files={STATE: start.model_dump_json()},
        reference={STATE: reached.model_dump_json()},
        artifacts=(STATE,),
        hidden=tuple(
            AnswerCheck(id=f"{slot.id}#{name}", verifier=name, expected=expected, path=STATE)
            for name in ("changes_made", "nothing_else")
        ),
        labels={
            **slot.labels,
            "faults": ", ".join(f"{f.tool} {f.call}: {f.kind}" for f in start.faults),
            "calls": json.dumps([[call.tool, call.model_dump()] for call in calls]),
        },
    )


def _faults(rng: random.Random, calls: Sequence[Action], count: int) -> tuple[Fault, ...]:
    """Failures of some of these calls, so that whoever does the errands meets them."""
    numbers: Counter[str] = Counter()
    found: list[Fault] = []
    for call in calls:
        numbers[call.tool] += 1
        kind = rng.choice(_kinds(call))
        found.append(Fault(tool=call.tool, call=numbers[call.tool], kind=kind))
    return tuple(rng.sample(found, min(count, len(found))))


def _kinds(call: Action) -> list[FaultKind]:
    kinds: list[FaultKind] = ["no_answer", "rate_limit"]
    if call.changes:
        kinds += ["lost_answer", "lost_answer"]
    if isinstance(call, OnRow):
        kinds += ["stale_id"]
    return kinds
