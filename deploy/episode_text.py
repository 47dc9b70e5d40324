"""Parts of an episode as short lines that are safe to print."""

from __future__ import annotations

import json
import math

from palestra.deploy.text import one_line
from palestra.rl.types import Provenance, ToolCall, Trajectory, Turn


def call_text(call: ToolCall) -> str:
    """A tool call on one line, safe to print.

    Example: ``replace(line="3", text="return x")``
    """
    arguments = ", ".join(
        f"{one_line(name)}={one_line(json.dumps(value, ensure_ascii=False, default=str))}"
        for name, value in call.arguments.items()
    )
    return f"{one_line(call.name)}({arguments})"


def observed(turn: Turn) -> str:
    """The heading of an observation, which says how much of it the policy did not see."""
    return f"observation, {turn.elided} bytes left out" if turn.elided else "observation"


def mean_logprob(turn: Turn) -> str:
    """How sure the policy was of a reply."""
    if not turn.logprobs:
        return "no log-probabilities"
    mean = math.fsum(turn.logprobs) / len(turn.logprobs)
    return f"mean log-probability {mean:.3f}"


def parts(trajectory: Trajectory) -> str:
    """The named parts of a reward, and what shaping put on it; empty when there is none."""
    reward = trajectory.reward
    if reward is None:
        return ""
    named = [f"{one_line(name)} {value:g}" for name, value in reward.parts.items()]
    named += [f"{one_line(name)} {value:+g}" for name, value in reward.shaping.items()]
    return f"  ({', '.join(named)})"


def checks(trajectory: Trajectory) -> str:
    """How many hidden checks passed, and the first that did not."""
    if trajectory.verdict is None:
        return "not graded"
    passed = trajectory.verdict.passed
    failed = [name for name, good in passed.items() if not good]
    first = f" (first failure: {one_line(failed[0])})" if failed else ""
    return f"{len(passed) - len(failed)} of {len(passed)} hidden checks passed{first}"


def vouched(trajectory: Trajectory) -> list[str]:
    """Who vouches for the verdict and each part of the reward, and which rewards abstained, one
    line each."""
    verdict, reward = trajectory.verdict, trajectory.reward
    named = [("verdict", verdict.provenance)] if verdict and verdict.provenance else []
    named += reward.provenance.items() if reward else []
    lines = [f"{one_line(name)}: {_vouched(by)}" for name, by in named]
    silent = trajectory.abstained.items()
    return lines + [f"{one_line(name)} abstained: {one_line(why)}" for name, why in silent]


def _vouched(by: Provenance) -> str:
    cost = f"{by.seconds:.2g} s" + (f", {by.tokens} tokens" if by.tokens else "")
    return f"{one_line(by.verifier)} ({one_line(by.version)}), {one_line(by.evidence)}, {cost}"


def total(trajectory: Trajectory) -> str:
    """The reward of an episode; ``-`` when it has none."""
    return "-" if trajectory.reward is None else f"{trajectory.reward.total:g}"
