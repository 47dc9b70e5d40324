"""Verifiable rewards for an answer that was handed in: what the task expects, by any verifier.

The verdict says whether an answer is right by the verifier that its task names; these say it by
another, or how much of it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from palestra.rewards.answers import numeric as numbers
from palestra.rewards.answers import symbolic as expressions
from palestra.rewards.answers import text as texts
from palestra.rewards.answers.constraints import broken, rules_in
from palestra.rewards.answers.grade import MAX_ANSWER
from palestra.rewards.false_claim import claims
from palestra.rewards.unified import texts_after
from palestra.rl.errors import Abstain
from palestra.rl.types import AnswerCheck, RewardFn, Sandbox, TaskOf, Trajectory, Verifier


def exact(*, task_of: TaskOf) -> RewardFn:
    """1.0 when the answer is the expected text but for white space and case, else 0.0."""
    return Answer(texts.exact, task_of)


def numeric(*, task_of: TaskOf) -> RewardFn:
    """1.0 when the answer is the expected number, or as near as it says, else 0.0."""
    return Answer(numbers.numeric, task_of)


def symbolic(*, task_of: TaskOf) -> RewardFn:
    """1.0 when the answer is an expression of the same value as the expected one, else 0.0."""
    return Answer(expressions.symbolic, task_of)


def constraints(*, task_of: TaskOf) -> RewardFn:
    """Share of a task's instructions that the text obeys; 0.0 for one that claims more."""
    return Constraints(task_of)


class Answer:
    """Every answer of a task by one verifier; abstains for tasks that expect none."""

    def __init__(self, verifier: Verifier, task_of: TaskOf) -> None:
        self._verifier = verifier
        self._task_of = task_of

    async def __call__(self, trajectory: Trajectory, box: Sandbox | None) -> float:
        answers = _answers(trajectory, self._task_of)
        wrong = await asyncio.gather(
            *(self._verifier(text, check.expected) for check, text in answers if text)
        )
        return float(all(text for _, text in answers) and not any(wrong))


class Constraints:
    """The mean over a task's texts; abstains for tasks without instructions of this kind."""

    def __init__(self, task_of: TaskOf) -> None:
        self._task_of = task_of

    async def __call__(self, trajectory: Trajectory, box: Sandbox | None) -> float:
        answers = _answers(trajectory, self._task_of, "constraints")
        return sum(_obeyed(text, check.expected) for check, text in answers) / len(answers)


def _obeyed(text: str, expected: str) -> float:
    rules, missed = rules_in(expected), broken(text, expected)
    if not text or not rules or (missed and claims(text)):
        return 0.0
    return 1.0 - len(missed) / len(rules)


def _answers(
    trajectory: Trajectory, task_of: TaskOf, verifier: str = ""
) -> Sequence[tuple[AnswerCheck, str]]:
    """What the task asks for, and what was handed in; empty where that is nothing that can be
    read. Abstains where the task asks for nothing of the kind."""
    task = task_of(trajectory.task_id)
    checks = [
        check
        for check in task.hidden
        if isinstance(check, AnswerCheck) and verifier in ("", check.verifier)
    ]
    if not checks:
        raise Abstain(f"the task expects no {verifier or 'answer'}")
    try:
        given = texts_after(task, trajectory.patch)
    except ValueError:
        given = {}
    return [(check, given.get(check.path, "")[:MAX_ANSWER]) for check in checks]
