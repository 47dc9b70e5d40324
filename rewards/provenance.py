"""Who vouches for what is learned: every verdict and every reward names its maker."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace

from palestra.rewards.answers.registry import VERIFIERS
from palestra.rewards.kinds import AnyReward
from palestra.rl.plugins import origin
from palestra.rl.types import (
    AnswerCheck,
    Grader,
    Outcome,
    Provenance,
    Task,
    Trajectory,
    Verdict,
    Work,
)


def vouching(grade: Grader) -> Grader:
    """``grade``, whose verdicts say who made them, from which checks, and in how many seconds."""

    async def graded(task: Task, work: Work) -> Verdict:
        started = time.monotonic()
        verdict = await grade(task, work)
        if verdict.outcome is not Outcome.GRADED:
            return verdict
        return replace(verdict, provenance=of_verdict(task, verdict, time.monotonic() - started))

    return graded


def of_verdict(task: Task, verdict: Verdict, seconds: float) -> Provenance:
    """The kinds of a task's hidden checks, or the names of its answer verifiers; the evidence says
    how many passed, and the digest of the checks says which they were."""
    answers = {check.verifier for check in task.hidden if isinstance(check, AnswerCheck)}
    kinds = {type(check).__name__ for check in task.hidden}
    versions = {origin(VERIFIERS.find(name)) for name in answers} or {origin(of_verdict)}
    content = repr((task.hidden, sorted(task.test_files.items()))).encode(errors="replace")
    digest = hashlib.blake2b(content, digest_size=8).hexdigest()
    passed = sum(verdict.passed.values())
    return Provenance(
        verifier=", ".join(sorted(answers or kinds)),
        version=", ".join(sorted(versions)),
        evidence=f"{passed} of {len(verdict.passed)} checks passed ({digest})",
        seconds=seconds,
    )


def of_reward(reward: AnyReward, trajectory: Trajectory, seconds: float) -> Provenance:
    """A reward function and the package that it comes from; it goes by the episode, and by the
    verdict on it where there is one."""
    verdict = trajectory.verdict
    return Provenance(
        verifier=getattr(reward, "__qualname__", type(reward).__qualname__),
        version=origin(reward if hasattr(reward, "__qualname__") else type(reward)),
        evidence=verdict.provenance.evidence if verdict and verdict.provenance else "the episode",
        seconds=seconds,
    )
