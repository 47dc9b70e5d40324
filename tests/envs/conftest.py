"""Boxes for the tests of environments: plain folders and a plain child process, nothing trusted."""

from __future__ import annotations

import asyncio
import io
import json
import os
import secrets
import sys
import tarfile
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

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
from palestra.sandbox import auto

BASE = "agentbase:bookworm"
RUNNER = """
import json, signal, sys
class Slow(BaseException): pass
def stop(*_): raise Slow
signal.signal(signal.SIGPROF, stop)
seconds, jobs = json.load(sys.stdin)
def run(job, check):
    space = {"__name__": "candidate"}
    if "args" not in check and "code" not in check:
        return False, "not supported here"
    try:
        signal.setitimer(signal.ITIMER_PROF, seconds)
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
        signal.setitimer(signal.ITIMER_PROF, 0)
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


@pytest.fixture(scope="session")
def docker() -> Any:
    """Boxes of a Docker daemon; without one a test is skipped, but not where it is required."""
    if not os.environ.get("DOCKER_HOST"):
        if "docker" in os.environ.get("PALESTRA_REQUIRE", ""):
            pytest.fail("DOCKER_HOST is not set")
        pytest.skip("DOCKER_HOST is not set")
    return auto.make("docker", image=os.environ.get("PALESTRA_TEST_IMAGE", BASE))


@pytest.fixture(scope="session")
def build_image(docker: Any) -> Iterator[Callable[[Mapping[str, str]], str]]:
    """Makes images of the base image with files in it, which are gone in the end."""
    from docker import from_env

    client, names = from_env(), []

    def build(files: Mapping[str, str]) -> str:
        base = os.environ.get("PALESTRA_TEST_IMAGE", BASE)
        context = io.BytesIO()
        with tarfile.open(fileobj=context, mode="w") as archive:
            for path, text in {**files, "Dockerfile": f"FROM {base}\nCOPY . /\n"}.items():
                entry = tarfile.TarInfo(path)
                entry.size = len(text)
                archive.addfile(entry, io.BytesIO(text.encode()))
        context.seek(0)
        names.append(f"palestra-test-image:{secrets.token_hex(4)}")
        client.images.build(fileobj=context, custom_context=True, tag=names[-1], rm=True)
        return str(names[-1])

    yield build
    for name in names:
        client.images.remove(name, force=True)
