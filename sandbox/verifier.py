"""Grading by a script of the task's own: the verifier of a Harbor task, run in a fresh box.

Weaker than other checks: the script runs the work as its own user, so that work which knows how can
write the rewards. What holds: the box is not the agent's, rewards are what files hold after all
processes were ended, they travel over the report descriptor, and where two files differ, or none
was written, nothing is passed.
"""

from __future__ import annotations

import json
import math

from palestra.rl.errors import BoxDied, SandboxError
from palestra.rl.types import (
    ExecResult,
    Grader,
    Outcome,
    Patch,
    Sandbox,
    SandboxProvider,
    Task,
    Verdict,
    VerifierCheck,
    Work,
)
from palestra.sandbox.answers import HELLO
from palestra.sandbox.checks import why
from palestra.sandbox.shipping import PYTHON, booted
from palestra.sandbox.tree import patched, plain
from palestra.sandbox.verifier_worker import REWARDS

_MODULES = ("sandbox.answers", "sandbox.candidate", "sandbox.verifier_worker")
_START_S = 30.0


def verifying(grade: Grader, provider: SandboxProvider) -> Grader:
    """``grade``, but a task with a ``VerifierCheck`` is graded by that in a box of ``provider``."""

    async def graded(task: Task, work: Work) -> Verdict:
        check = next((each for each in task.hidden if isinstance(each, VerifierCheck)), None)
        if check is None:
            return await grade(task, work)
        if task.tree is None or not isinstance(work, Patch):
            return _failed(check, "no patch was collected")
        if work.refused:
            return _failed(check, work.refused)
        try:
            async with provider.open(task.image) as box:
                return await _verified(task, check, work, box)
        except SandboxError as error:
            if isinstance(error, BoxDied) and error.by_agent:
                return _failed(check, str(error))
            return Verdict(outcome=Outcome.INFRA_FAILURE, reason=str(error))

    return graded


async def _verified(task: Task, check: VerifierCheck, work: Patch, box: Sandbox) -> Verdict:
    assert task.tree is not None
    tree = patched(task.tree.files, work, {})
    await box.put(
        {path: file.data for path, file in tree.items()},
        executable={path for path, file in tree.items() if file.executable},
    )
    plain(task.test_files)
    plan = {
        "tests": {path: (text.encode(), 0o755) for path, text in task.test_files.items()},
        "script": check.script,
        "timeout": check.timeout,
        "env": dict(check.env),
    }
    ended = await box.exec(
        PYTHON,
        stdin=booted(_MODULES, "sandbox.verifier_worker", plan),
        timeout=check.timeout + _START_S,
        report=True,
    )
    return _judged(check, ended)


def _judged(check: VerifierCheck, ended: ExecResult) -> Verdict:
    if not ended.report.startswith(HELLO):
        raise SandboxError(f"the verifier did not start: {why(ended)}")
    try:
        report = json.loads(ended.report[len(HELLO) :])
    except ValueError:
        late = ended.timed_out
        reason = "time limit of the box" if late else "the verifier was ended by what it ran"
        return _failed(check, reason)
    if not report["ended"]:
        return _failed(check, f"time limit of the verifier: {check.timeout:g} s")
    rewards = rewards_in(*(report[name] for name in REWARDS))
    if isinstance(rewards, str):
        return _failed(check, rewards)
    passed = {check.id: all(value >= 1.0 for value in rewards.values())}
    reason = "" if passed[check.id] else ", ".join(f"{k}: {v:g}" for k, v in rewards.items())
    return Verdict(outcome=Outcome.GRADED, passed=passed, reason=reason, rewards=rewards)


def rewards_in(number: str | None, table: str | None) -> dict[str, float] | str:
    """The rewards of ``reward.txt``, a number, or ``reward.json``, numbers by name; or what is
    wrong with them.

    Example: ``rewards_in(None, '{"tests": 1, "style": 0.5}') == {"tests": 1.0, "style": 0.5}``
    """
    try:
        single = None if number is None else {"reward": float(number)}
        several = None if table is None else _numbers(json.loads(table))
    except (ValueError, TypeError, RecursionError, OverflowError):
        return "the verifier wrote no numbers"
    if single is not None and several is not None and single != several:
        return "reward.txt and reward.json differ"
    rewards = several or single
    if not rewards:
        return "the verifier wrote no reward"
    if not all(math.isfinite(value) for value in rewards.values()):
        return "the verifier wrote no finite numbers"
    return rewards


def _numbers(found: object) -> dict[str, float]:
    table = found if isinstance(found, dict) else {"reward": found}
    numbers = {str(k): float(v) for k, v in table.items() if isinstance(v, int | float)}
    if len(numbers) < len(table):
        raise TypeError("not numbers")
    return numbers


def _failed(check: VerifierCheck, reason: str) -> Verdict:
    return Verdict(outcome=Outcome.GRADED, passed={check.id: False}, reason=reason)
