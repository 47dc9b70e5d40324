"""What an agent is told about check results: short, and the same for the same results."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

from palestra.rl.types import CallCheck, Check, CheckResult, ProgramCheck, ScriptCheck

MAX_CHARS = 400

_ERROR = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt|StopIteration)(:|$)")
_HUNG = ("timed out", "no answer", "time limit", "not run")
_NO_VALUE = ("no result", "the process ended", "value too large", "malformed")
# A measured time would differ from run to run, and with it what the policy reads.
_TIME = re.compile(r"no answer after [0-9.]+ s")


def report(checks: Sequence[Check], results: Sequence[CheckResult]) -> str:
    """``"2 of 4 passed"`` and, unless all did, one line or more about the first that failed.

    Example: ``"1 of 2 passed\\nclamp(5, 0, 3) returned 5, expected 3"``
    """
    by_id = {result.id: result for result in results}
    outcomes = [
        by_id.get(c.id, CheckResult(id=c.id, passed=False, got="no result")) for c in checks
    ]
    head = f"{sum(result.passed for result in outcomes)} of {len(outcomes)} passed"
    for check, result in zip(checks, outcomes, strict=True):
        if not result.passed:
            return f"{head}\n{clip(_failure(check, result.got))}"
    return head


def all_passed(count: int) -> str:
    """What ``report`` says when all of ``count`` checks passed."""
    return f"{count} of {count} passed"


def hung(got: str) -> bool:
    """Was a check stopped because it, or one before it, took too long?"""
    return got.startswith(_HUNG)


def clip(text: str, limit: int = MAX_CHARS) -> str:
    """The head and the tail of a long text with the number of characters left out between them."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]} [{len(text) - 2 * half} characters left out] {text[-half:]}"


def _failure(check: Check, got: str) -> str:
    if isinstance(check, CallCheck):
        verb = "returned "
        if hung(got) or got.startswith(_NO_VALUE):
            verb, got = "gave no value: ", _TIME.sub("no answer in time", got)
        elif _ERROR.match(got):
            verb = "raised "
        return f"{call_text(check)} {verb}{got}, expected {check.expected}"
    if isinstance(check, ScriptCheck):
        return f"{check.code.strip()}\n{got}".strip()
    if isinstance(check, ProgramCheck):
        got = _TIME.sub("no answer in time", got)
        return f"input:\n{check.stdin}\ngot:\n{got}\nexpected:\n{check.expected[0]}"
    return f"{check.id}: {got}"


def call_text(check: CallCheck) -> str:
    """``"clamp(5, 0, 3)"``: the call of a check as a person would write it."""
    arguments = check.args
    try:
        parsed = ast.parse(arguments, mode="eval").body
    except (SyntaxError, ValueError):
        return f"{check.function}(*{arguments})"
    if not isinstance(parsed, ast.Tuple):
        return f"{check.function}(*{arguments})"
    return f"{check.function}({', '.join(ast.unparse(item) for item in parsed.elts)})"
