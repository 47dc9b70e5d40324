"""Running checks in a box and grading a task, with nothing decided by the candidate.

The verdict is made here from bytes that arrived on the report descriptor; output, exit code and
files of the candidate are not looked at. See ``worker`` for the side inside the box.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from palestra.rl.errors import BoxDied, SandboxError
from palestra.rl.types import (
    AppendedCheck,
    CallCheck,
    Check,
    CheckJob,
    CheckResult,
    ExecResult,
    File,
    Grader,
    Outcome,
    Patch,
    ProgramCheck,
    Sandbox,
    SandboxProvider,
    SuiteCheck,
    Task,
    Verdict,
    Work,
)
from palestra.sandbox.answers import ERROR, FAILED, HELLO, PASSED, TIMEOUT, VALUE
from palestra.sandbox.codec import decode
from palestra.sandbox.compare import same, shown
from palestra.sandbox.outputs import digest, matches
from palestra.sandbox.plan import canaries, literal, request
from palestra.sandbox.shipping import PYTHON
from palestra.sandbox.tree import patched
from palestra.sandbox.watch import WALL_LIMITS
from palestra.sandbox.worker import SUITE_LIMITS

CHECK_S = 2.0
"""Processor seconds before a check counts as hung; 1.5 times that by the clock when it is idle."""

MAX_ARTIFACT = 1 << 20
"""Bytes of the largest artifact that is graded."""


async def run_checks(
    jobs: Sequence[CheckJob],
    box: Sandbox,
    *,
    timeout: float = 10.0,
    check_s: float = CHECK_S,
) -> list[list[CheckResult]]:
    """Run many jobs in one command of ``box``; one list of results per job, in order.

    A check that never reported is not passed. ``timeout`` (seconds) bounds the whole command,
    ``check_s`` the processor time of one check: a job with one that hangs is not continued.
    Raises ``SandboxError`` when the box failed before any candidate ran, ``UserError`` for a check
    whose literals cannot be read.
    """
    if not any(job.checks for job in jobs):
        return [[] for _ in jobs]
    ended = await box.exec(
        PYTHON,
        stdin=request(jobs, check_s),
        env={"PYTHONHASHSEED": "0"},
        timeout=timeout,
        max_output=4096,
        report=True,
    )
    return judged(jobs, ended)


def judged(jobs: Sequence[CheckJob], ended: ExecResult) -> list[list[CheckResult]]:
    """What the worker's report says of each check; raises ``SandboxError`` if it never started."""
    if not ended.report.startswith(HELLO):
        raise SandboxError(f"the worker did not start: {why(ended)}")
    answers = _answers(ended.report[len(HELLO) :])
    missing = "time limit" if ended.timed_out else "no answer: the run was ended"
    found: list[list[CheckResult]] = []
    for n, job in enumerate(jobs):
        given = {index: answer for (number, index), answer in answers.items() if number == n}
        forged = _forged(job, given, missing)
        found.append([_judge(c, given.get(i), missing, forged) for i, c in enumerate(job.checks)])
    return found


@runtime_checkable
class Runner(Protocol):
    """Runs jobs where nothing else was run before; ``warm.Warm`` is one."""

    async def run(
        self, jobs: Sequence[CheckJob], *, timeout: float = 10.0, check_s: float = CHECK_S
    ) -> list[list[CheckResult]]:
        """What ``run_checks`` returns and raises."""
        ...


class Fresh:
    """Runs jobs, all of one image if of any, in a fresh box of ``provider``.

    Example: ``[results] = await Fresh(Bubblewrap()).run([job])``
    """

    def __init__(self, provider: SandboxProvider) -> None:
        self._provider = provider

    async def run(
        self, jobs: Sequence[CheckJob], *, timeout: float = 10.0, check_s: float = CHECK_S
    ) -> list[list[CheckResult]]:
        """See ``run_checks``."""
        image = jobs[0].image if jobs else None
        async with self._provider.open(image) as box:
            return await run_checks(jobs, box, timeout=timeout, check_s=check_s)


def make_grader(
    boxes: SandboxProvider | Runner,
    *,
    concurrency: int | None = None,
    timeout: float | None = None,
    check_s: float = CHECK_S,
) -> Grader:
    """A ``Grader`` that opens a fresh box of a provider per call, or uses a runner, as ``Warm`` is.

    ``concurrency`` boxes at a time (default: twice the processors); ``timeout`` in seconds for
    the whole run of a task's checks (default: 10 and ``check_s`` per check, and room for one that
    the machine is slow to run); ``check_s`` as in ``run_checks``.
    """
    concurrency = concurrency or 2 * len(os.sched_getaffinity(0))
    runner = boxes if isinstance(boxes, Runner) else Fresh(boxes)
    return _Grader(runner, concurrency, timeout, check_s)


class _Grader:
    def __init__(
        self, runner: Runner, concurrency: int, timeout: float | None, check_s: float
    ) -> None:
        self._runner = runner
        self._concurrency = concurrency
        self._timeout = timeout
        self._check_s = check_s
        self._turns: tuple[asyncio.AbstractEventLoop, asyncio.Semaphore] | None = None

    async def __call__(self, task: Task, work: Work) -> Verdict:
        job = job_of(task, work)
        if isinstance(job, str):
            nothing = {check.id: False for check in task.hidden}
            return Verdict(outcome=Outcome.GRADED, passed=nothing, reason=job)
        timeout = self._timeout or 10.0 + max(self._check_s, task.check_s) * _limits(task.hidden)
        try:
            async with self._turn():
                runs = self._runner.run([job], timeout=timeout, check_s=self._check_s)
                [results] = await runs
        except SandboxError as error:
            if isinstance(error, BoxDied) and error.by_agent:
                nothing = {check.id: False for check in task.hidden}
                return Verdict(outcome=Outcome.GRADED, passed=nothing, reason=str(error))
            return Verdict(outcome=Outcome.INFRA_FAILURE, reason=str(error))
        passed = {result.id: result.passed for result in results}
        return Verdict(outcome=Outcome.GRADED, passed=passed, reason=_first_failure(results))

    def _turn(self) -> asyncio.Semaphore:
        # A semaphore belongs to one event loop; tests and tools use a grader from several.
        loop = asyncio.get_running_loop()
        if self._turns is None or self._turns[0] is not loop:
            self._turns = (loop, asyncio.Semaphore(self._concurrency))
        return self._turns[1]


def job_of(task: Task, work: Work) -> CheckJob | str:
    """What is run to grade ``work``, or why it cannot be graded: then it failed."""
    if task.tree is None:
        files = _artifacts(task, {} if isinstance(work, Patch) else work)
        return files if isinstance(files, str) else _job(task, files, {})
    if not isinstance(work, Patch):
        return "no patch was collected"
    tree = patched(task.tree.files, work, task.test_files)
    return work.refused or _job(task, {}, tree)


def _job(task: Task, files: Mapping[str, str], tree: Mapping[str, File]) -> CheckJob:
    return CheckJob(
        files=files,
        checks=task.hidden,
        test_files=task.test_files,
        tree=tree,
        check_s=task.check_s,
        image=task.image,
    )


def _limits(checks: Sequence[Check]) -> float:
    """Time limits of one check that all of these may take by the clock, when one of them gets so
    little of a crowded machine that it ends at ``WALL_LIMITS``."""
    known = {SuiteCheck: SUITE_LIMITS, AppendedCheck: 2.0}
    factors = [known.get(type(check), 1.0) for check in checks]
    return sum(factors) + (WALL_LIMITS - 1) * max(factors, default=0.0)


def _artifacts(task: Task, files: Mapping[str, bytes]) -> dict[str, str] | str:
    """The declared artifacts as text, or why they cannot be graded; anything else is ignored."""
    found: dict[str, str] = {}
    for path in task.artifacts:
        data = files.get(path)
        if data is None:
            return f"{path}: missing"
        if len(data) > MAX_ARTIFACT:
            return f"{path}: larger than {MAX_ARTIFACT} bytes"
        try:
            found[path] = data.decode()
        except UnicodeDecodeError:
            return f"{path}: not UTF-8"
    return found


def _first_failure(results: Sequence[CheckResult]) -> str:
    failed = [result for result in results if not result.passed]
    return f"{failed[0].id}: {failed[0].got}" if failed else ""


def why(ended: ExecResult) -> str:
    """How a command of ours failed, in a line."""
    if ended.timed_out:
        return "timed out"
    text = ended.stderr.decode(errors="replace").strip().splitlines()
    return text[-1] if text else f"exit code {ended.exit_code}, signal {ended.signal}"


# --- what comes back -----------------------------------------------------------------------------


def _answers(report: bytes) -> dict[tuple[int, int], tuple[bytes, bytes]]:
    """``(job, check)`` to ``(kind, data)``; the first answer counts, a torn end is dropped."""
    found: dict[tuple[int, int], tuple[bytes, bytes]] = {}
    at = 0
    while at + 13 <= len(report):
        job, size, check = (int.from_bytes(report[at + k : at + k + 4], "big") for k in (0, 4, 8))
        if at + 13 + size > len(report):
            break
        data = report[at + 13 : at + 13 + size]
        found.setdefault((job, check), (report[at + 12 : at + 13], data))
        at += 13 + size
    return found


def _forged(job: CheckJob, given: Mapping[int, tuple[bytes, bytes]], missing: str) -> str:
    """Why no test of the job's suite is believed; empty when every canary failed as it must."""
    for index in canaries(job):
        kind, data = given.get(index, (ERROR, missing.encode()))
        if kind == PASSED:
            return f"a test that must fail passed: {data.decode(errors='replace')[:100]}"
        if kind != FAILED:
            return data.decode(errors="replace")[:200]
    return ""


def _judge(
    check: Check, answer: tuple[bytes, bytes] | None, missing: str, forged: str
) -> CheckResult:
    if answer is None:
        return CheckResult(id=check.id, passed=False, got=missing)
    kind, data = answer
    if isinstance(check, SuiteCheck) and forged and kind == PASSED:
        return CheckResult(id=check.id, passed=False, got=forged)
    if kind in (ERROR, TIMEOUT, FAILED):
        return CheckResult(id=check.id, passed=False, got=data.decode(errors="replace")[:200])
    if isinstance(check, CallCheck):
        return _judge_value(check, data if kind == VALUE else b"")
    if isinstance(check, ProgramCheck):
        return _judge_output(check, data if kind == VALUE else b"")
    return CheckResult(id=check.id, passed=kind == PASSED)


def _judge_value(check: CallCheck, data: bytes) -> CheckResult:
    expected, encoded = literal(check.expected)
    # Far larger than expected cannot be right, and decoding hostile sets takes quadratic time.
    if len(data) > 4 * len(encoded) + 4096:
        return CheckResult(id=check.id, passed=False, got="value too large")
    try:
        got = decode(data)
    except ValueError as error:
        return CheckResult(id=check.id, passed=False, got=str(error))
    return CheckResult(id=check.id, passed=same(expected, got), got=shown(got))


def _judge_output(check: ProgramCheck, data: bytes) -> CheckResult:
    try:
        got = decode(data)
    except ValueError as error:
        return CheckResult(id=check.id, passed=False, got=str(error))
    if not isinstance(got, tuple) or not got or not isinstance(got[0], str):
        return CheckResult(id=check.id, passed=False, got="malformed answer")
    return CheckResult(
        id=check.id,
        passed=any(_printed(check, text, got) for text in check.expected),
        got=got[0][:200],
    )


def _printed(check: ProgramCheck, expected: str, got: tuple[object, ...]) -> bool:
    """Whether a text, or the digest of a long one, is what was expected."""
    if len(got) > 1:
        return got[1] == digest(expected, by_line=check.by_line)
    text = str(got[0])
    return matches(expected, text, tolerance=check.tolerance, by_line=check.by_line)
