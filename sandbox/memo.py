"""The same files and the same checks are run once: siblings of a group often write the same thing.

Sound because a job holds everything that its result depends on. A result that may be an accident
of the moment (a time limit, a run that was ended) is never remembered. What is kept is the result
of a run in a fresh box, so nothing of one agent's reaches another.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from palestra.rl.types import (
    CheckJob,
    CheckResult,
    CheckRunner,
    Grader,
    Outcome,
    Patch,
    Sandbox,
    Task,
    Verdict,
    Work,
)

T = TypeVar("T")
ACCIDENTS = ("time limit", "no answer", "not run", "the process ended")


class Memo(Generic[T]):
    """The last ``size`` values by key; whoever asks while a value is being made waits for it."""

    def __init__(self, size: int = 20_000) -> None:
        self.size = size
        self.hits = self.misses = 0
        self._values: OrderedDict[bytes, T] = OrderedDict()
        self._making: dict[bytes, asyncio.Lock] = {}

    @asynccontextmanager
    async def turn(self, key: bytes) -> AsyncIterator[T | None]:
        """The value, or None: then the caller makes it and calls ``put`` before leaving."""
        lock = self._making.setdefault(key, asyncio.Lock())
        try:
            async with lock:
                value = self._values.get(key)
                self.hits += value is not None
                self.misses += value is None
                yield value
        finally:
            if not lock.locked():
                self._making.pop(key, None)

    def put(self, key: bytes, value: T) -> None:
        """Remember a value, forgetting the oldest when there are too many."""
        self._values[key] = value
        if len(self._values) > self.size:
            self._values.popitem(last=False)


def remembering_runner(run: CheckRunner, *, concurrency: int) -> CheckRunner:
    """``run`` with a memory for single jobs; at most ``concurrency`` commands run at once."""
    memo: Memo[list[CheckResult]] = Memo()
    gate = asyncio.Semaphore(concurrency)

    async def once(
        jobs: Sequence[CheckJob], box: Sandbox, *, timeout: float = 10.0
    ) -> list[list[CheckResult]]:
        if len(jobs) != 1:
            async with gate:
                return await run(jobs, box, timeout=timeout)
        key = _key(jobs[0])
        async with memo.turn(key) as known:
            if known is not None:
                return [known]
            async with gate:
                answer = await run(jobs, box, timeout=timeout)
            if not any(accidental(result.got) for result in answer[0] if not result.passed):
                memo.put(key, answer[0])
            return answer

    return once


def remembering_grader(grade: Grader) -> Grader:
    """``grade`` with a memory for verdicts on the same artifacts of the same task."""
    memo: Memo[Verdict] = Memo()

    async def once(task: Task, work: Work) -> Verdict:
        key = _digest([task.id.encode(), *_parts(work)])
        async with memo.turn(key) as known:
            if known is not None:
                return known
            verdict = await grade(task, work)
            if verdict.outcome is Outcome.GRADED and not accidental(verdict.reason):
                memo.put(key, verdict)
            return verdict

    return once


def accidental(text: str) -> bool:
    """True when a failure may have come from the machine's load rather than from the candidate."""
    return any(mark in text for mark in ACCIDENTS)


def _parts(work: Work) -> Iterator[bytes]:
    if not isinstance(work, Patch):
        for path, data in sorted(work.items()):
            yield from (path.encode(), data)
        return
    yield work.refused.encode()
    for path, file in sorted(work.files.items()):
        state = b"gone" if file is None else b"executable" if file.executable else b"plain"
        yield from (path.encode(), state, b"" if file is None else file.data)


def _key(job: CheckJob) -> bytes:
    return _digest([repr(job).encode()])


def _digest(parts: Sequence[bytes]) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()
