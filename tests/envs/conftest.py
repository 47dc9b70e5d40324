"""Boxes for the tests of environments: plain folders and a plain child process, nothing trusted."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict
from pathlib import Path

import pytest

from palestra.rl.types import (
    CheckJob,
    CheckResult,
    ExecResult,
    File,
    Outcome,
    Sandbox,
    Task,
    Verdict,
)

RUNNER = """
import json, signal, sys
class Slow(BaseException): pass
def stop(*_): raise Slow
signal.signal(signal.SIGALRM, stop)
seconds, jobs = json.load(sys.stdin)
def run(job, check):
    space = {"__name__": "candidate"}
    if "args" not in check and "code" not in check:
        return False, "not supported here"
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        exec(job["files"].get(check["module"] + ".py", ""), space)
        if "code" in check:
            exec(check["code"], dict(space))
            return True, ""
        got = space[check["function"]](*eval(check["args"]))
        return repr(got) == repr(eval(check["expected"])), repr(got)
    except Slow:
        return False, "timed out"
    except BaseException as error:
        return False, f"{type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
print(json.dumps([[run(job, check) for check in job["checks"]] for job in jobs]))
"""


class Folder:
    """A box that is a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    async def exec(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        timeout: float = 10.0,
        max_output: int = 65_536,
        report: bool = False,
    ) -> ExecResult:
        raise NotImplementedError

    async def read(self, path: str, *, max_bytes: int = 1 << 20) -> bytes:
        return (self.root / path).read_bytes()[:max_bytes]

    async def write(self, path: str, data: bytes) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_bytes(data)

    async def tree(self, path: str = ".", **limits: object) -> dict[str, File]:
        return {name: File(data=(self.root / name).read_bytes()) for name in self.names()}

    def names(self) -> set[str]:
        return {str(p.relative_to(self.root)) for p in self.root.rglob("*") if p.is_file()}


class Folders:
    """A provider of such boxes that counts those in use."""

    name = "folders"
    guarantees: frozenset[str] = frozenset()
    opened = 0
    closed = 0

    def open(self, image: object = None) -> AbstractAsyncContextManager[Sandbox]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Sandbox]:
        self.opened += 1
        with tempfile.TemporaryDirectory() as root:
            yield Folder(Path(root))
        self.closed += 1


async def run_checks(
    jobs: Sequence[CheckJob], box: Sandbox, *, timeout: float = 10.0
) -> list[list[CheckResult]]:
    """A check runner that trusts the candidate."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", RUNNER, stdin=-1, stdout=-1
    )
    rows = [asdict(job) for job in jobs]
    answer, _ = await process.communicate(json.dumps([timeout, rows]).encode())
    found = json.loads(answer.decode().strip().splitlines()[-1])
    return [
        [CheckResult(id=c.id, passed=ok, got=got) for c, (ok, got) in zip(j.checks, r, strict=True)]
        for j, r in zip(jobs, found, strict=True)
    ]


async def grade(task: Task, files: Mapping[str, bytes]) -> Verdict:
    """A grader that trusts the candidate."""
    texts = {path: data.decode() for path, data in files.items()}
    job = CheckJob(files=texts, checks=task.hidden, test_files=task.test_files)
    results = (await run_checks([job], Folder(Path())))[0]
    return Verdict(outcome=Outcome.GRADED, passed={r.id: r.passed for r in results})


class World:
    """What an environment is given."""

    run_checks = staticmethod(run_checks)
    grade = staticmethod(grade)

    def __init__(self) -> None:
        self.provider = Folders()


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of public data sets; missing data skips a test, but not in CI."""
    default = Path(__file__).resolve().parents[3] / "shared" / "data"
    folder = Path(os.environ.get("PALESTRA_DATA", default))
    if not folder.is_dir():
        reason = f"no data sets in {folder}; set PALESTRA_DATA"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder
