"""Verdicts on answers that nothing has to be run for."""

from __future__ import annotations

from collections.abc import Mapping

from palestra.rewards.answers.registry import VERIFIERS
from palestra.rl.errors import GraderError, InfraError, TaskError, boundary
from palestra.rl.types import AnswerCheck, Grader, Outcome, Patch, Task, Verdict, Work

MAX_ANSWER = 1 << 16
"""Bytes of the longest answer that is looked at."""


class AnswerGrader:
    """A ``Grader`` of tasks whose hidden checks are answers; all others are graded by ``others``.

    Example: ``grader = AnswerGrader(make_grader(boxes))``
    """

    def __init__(self, others: Grader) -> None:
        self._others = others

    async def __call__(self, task: Task, work: Work) -> Verdict:
        """See ``Grader``; raises ``TaskError`` for answers mixed with checks of code."""
        answers = [check for check in task.hidden if isinstance(check, AnswerCheck)]
        if not answers:
            return await self._others(task, work)
        if len(answers) < len(task.hidden) or isinstance(work, Patch):
            raise TaskError(f"{task.id}: checks of answers stand beside others")
        try:
            wrong = {check.id: await _wrong(check, work) for check in answers}
        except InfraError as error:
            return Verdict(outcome=Outcome.INFRA_FAILURE, reason=str(error))
        passed = {name: not reason for name, reason in wrong.items()}
        reason = next((f"{name}: {why}" for name, why in wrong.items() if why), "")
        return Verdict(outcome=Outcome.GRADED, passed=passed, reason=reason)


async def _wrong(check: AnswerCheck, work: Mapping[str, bytes]) -> str:
    data = work.get(check.path)
    if data is None:
        return f"{check.path}: missing"
    if len(data) > MAX_ANSWER:
        return f"{check.path}: larger than {MAX_ANSWER} bytes"
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return f"{check.path}: not UTF-8"
    async with boundary(GraderError, f"verifier {check.verifier}"):
        return await VERIFIERS.find(check.verifier)(text, check.expected)
