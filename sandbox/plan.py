"""What the host sends into a box to have checks run there; see ``worker`` for who reads it."""

from __future__ import annotations

from ast import literal_eval
from collections.abc import Sequence
from functools import lru_cache
from secrets import randbelow

from palestra.rl.errors import UserError
from palestra.rl.types import (
    AppendedCheck,
    CallCheck,
    CheckJob,
    ProgramCheck,
    ScriptCheck,
    SuiteCheck,
    UnitCheck,
)
from palestra.sandbox.codec import encode
from palestra.sandbox.outputs import has_decimals
from palestra.sandbox.process import REPORT_BYTES
from palestra.sandbox.shipping import booted
from palestra.sandbox.tree import plain

_MEMORY = 1 << 30
_CALL_MODULES = (
    "sandbox.codec",
    "sandbox.answers",
    "sandbox.candidate",
    "sandbox.watch",
    "sandbox.worker",
)
TEST_MODULES = (
    *_CALL_MODULES,
    "sandbox.recorder",
    "sandbox.proxy",
    "sandbox.crossing",
    "sandbox.peer",
    "sandbox.tester",
)
SUITE_MODULES = (
    *TEST_MODULES,
    "sandbox.suite_api",
    "sandbox.suite_builtin",
    "sandbox.suite_fixtures",
    "sandbox.suite_canary",
    "sandbox.suite_django",
    "sandbox.suite",
)
_PROGRAM_MODULES = ("sandbox.outputs", "sandbox.programs")
ALL_MODULES = (*SUITE_MODULES, *_PROGRAM_MODULES)
_PRELOAD_FROM = 4
PRELOAD = ["collections", "functools", "heapq", "itertools", "math", "operator", "random", "re"]
PRELOAD += ["string", "typing"]


def request(jobs: Sequence[CheckJob], check_s: float) -> bytes:
    """Boot frame (code and candidates), then the tests, which candidates must not inherit."""
    plan, secret = plan_of(jobs, check_s)
    suites = any(canaries(job) for job in jobs)
    modules = SUITE_MODULES if suites else TEST_MODULES if secret else _CALL_MODULES
    if any(_programs(job) for job in jobs):
        modules = (*modules, *_PROGRAM_MODULES)
    return booted(modules, "sandbox.worker", plan) + secret


def plan_of(jobs: Sequence[CheckJob], check_s: float) -> tuple[dict[str, object], bytes]:
    """The plan of ``worker.main``, and the tests, which follow it on standard input.

    Raises ``UserError`` for a check whose literals cannot be read.
    """
    found: list[dict[str, object]] = []
    secrets: list[bytes] = []
    offset = 0
    for job in jobs:
        suite = _suite(job)
        secret = _secret(job, suite)
        planned = _planned(job, [index for index, _ in suite], (offset, len(secret)))
        found.append({**planned, "check_s": max(check_s, job.check_s)})
        secrets.append(secret)
        offset += len(secret)
    units = any(isinstance(check, UnitCheck) for job in jobs for check in job.checks)
    plan = {
        "jobs": found,
        "secret": offset,
        "memory": _MEMORY,
        # A share each, so that one candidate cannot use up what the report may hold.
        "room": min(1 << 20, REPORT_BYTES * 3 // 4 // len(jobs)),
        "preload": (["unittest"] if units else [])
        + (PRELOAD if len(jobs) >= _PRELOAD_FROM else []),
    }
    return plan, b"".join(secrets)


def _planned(job: CheckJob, suite: list[int], secret: tuple[int, int]) -> dict[str, object]:
    plain([*job.files, *job.tree])
    files = {
        path: (text.encode("utf-8", "surrogatepass"), 0o644) for path, text in job.files.items()
    }
    files |= {p: (file.data, 0o755 if file.executable else 0o644) for p, file in job.tree.items()}
    calls = [
        (index, check.module, check.function, _arguments(check))
        for index, check in enumerate(job.checks)
        if isinstance(check, CallCheck)
    ]
    proxied = (ScriptCheck, UnitCheck)
    tests = [i for i, check in enumerate(job.checks) if isinstance(check, proxied)]
    found = {"files": files, "calls": calls, "tests": tests, "suite": suite, "secret": secret}
    folder = job.image.folder if job.image else ""
    return {**found, "programs": _programs(job), "folder": folder}


def _programs(job: CheckJob) -> list[int]:
    kinds = (ProgramCheck, AppendedCheck)
    return [index for index, check in enumerate(job.checks) if isinstance(check, kinds)]


def canaries(job: CheckJob) -> range:
    """Numbers of the tests that must fail: two for each file of a suite, after all checks."""
    files = {_file(check) for check in job.checks if isinstance(check, SuiteCheck)}
    return range(len(job.checks), len(job.checks) + 2 * len(files))


def _suite(job: CheckJob) -> list[tuple[int, str]]:
    """Numbers and ids of a suite's tests as they are run: file by file, each with a canary at a
    place that nobody knows and one at the end."""
    files: dict[str, list[tuple[int, str]]] = {}
    for index, check in enumerate(job.checks):
        if isinstance(check, SuiteCheck):
            files.setdefault(_file(check), []).append((index, check.id))
    numbers = iter(canaries(job))
    for path, tests in files.items():
        tests.insert(randbelow(len(tests) + 1), (next(numbers), f"{path}::"))
        tests.append((next(numbers), f"{path}::"))
    return [test for tests in files.values() for test in tests]


def _file(check: SuiteCheck) -> str:
    path, separator, name = check.id.partition("::")
    plain([path])
    if not separator or not name:
        raise UserError(f"check {check.id!r}: not FILE::TEST or FILE::CLASS::TEST")
    return path


def _secret(job: CheckJob, suite: list[tuple[int, str]]) -> bytes:
    numbered = list(enumerate(job.checks))
    scripts = [
        (i, c.module, tuple(c.names), c.code) for i, c in numbered if isinstance(c, ScriptCheck)
    ]
    units = [(i, c.id) for i, c in numbered if isinstance(c, UnitCheck)]
    # Expected outputs stay here.
    programs = [
        (i, tuple(c.argv), c.stdin, any(map(has_decimals, c.expected)), c.by_line)
        for i, c in numbered
        if isinstance(c, ProgramCheck)
    ]
    appended = [
        (i, tuple(c.argv), c.path, c.code, c.wrong, c.done)
        for i, c in numbered
        if isinstance(c, AppendedCheck)
    ]
    if not (scripts or units or suite or programs or appended):
        return b""
    django = [check.django for check in job.checks if isinstance(check, SuiteCheck)]
    tests = {"scripts": scripts, "units": units, "suite": suite, "django": max(django, default="")}
    tests |= {"programs": programs, "appended": appended}
    return encode({**tests, "files": dict(job.test_files)})


def _arguments(check: CallCheck) -> bytes:
    value, data = literal(check.args)
    if not isinstance(value, tuple):
        raise UserError(f"check {check.id}: args must be the text of a tuple, not {check.args!r}")
    return data


@lru_cache(maxsize=1 << 14)
def literal(text: str) -> tuple[object, bytes]:
    """The value of a literal of our own task data (never change it), and its encoding."""
    try:
        value = literal_eval(text)
        return value, encode(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise UserError(f"not a Python literal: {text[:60]!r}: {error}") from error
