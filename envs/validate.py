"""Many candidate programs run against their checks in boxes, with the results kept on disk."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from palestra.rl.types import CheckJob, CheckResult, CheckRunner, SandboxProvider

FORMAT = "1"


@dataclass(frozen=True, kw_only=True)
class Validator:
    """How candidates are run: ``batch`` jobs per command, ``boxes`` boxes at a time.

    ``timeout`` is what one check may take, in seconds. ``cache`` is a folder of JSON files named by
    the hash of the jobs that they answer.

    Example: ``Validator(run_checks=run_checks, provider=Bubblewrap())``
    """

    run_checks: CheckRunner
    provider: SandboxProvider
    cache: Path | None = None
    batch: int = 100
    boxes: int = 2
    timeout: float = 2.0

    async def run(self, groups: Sequence[Sequence[CheckJob]]) -> list[list[list[CheckResult]]]:
        """Results of every job of every group, in order; a group is what the cache remembers.

        Raises ``SandboxError`` when a box failed; groups already done stay in the cache.
        """
        results = {index: found for index, jobs in enumerate(groups) if (found := self._get(jobs))}
        missing = [index for index in range(len(groups)) if index not in results]
        gate = asyncio.Semaphore(self.boxes)

        async def work(members: Sequence[int]) -> None:
            async with gate:
                flat = [job for index in members for job in groups[index]]
                answers = iter(await self._run(flat))
                for index in members:
                    results[index] = [next(answers) for _ in groups[index]]
                    self._put(groups[index], results[index])

        async with asyncio.TaskGroup() as workers:
            for members in self._bundles(groups, missing):
                workers.create_task(work(members))
        return [results[index] for index in range(len(groups))]

    async def _run(self, jobs: Sequence[CheckJob]) -> list[list[CheckResult]]:
        answers: list[list[CheckResult]] = []
        for start in range(0, len(jobs), self.batch):
            part = jobs[start : start + self.batch]
            async with self.provider.open() as box:
                answers += await self.run_checks(part, box, timeout=self.timeout)
        return answers

    def _bundles(
        self, groups: Sequence[Sequence[CheckJob]], wanted: Sequence[int]
    ) -> Iterator[list[int]]:
        """Neighbouring groups together until they fill a batch."""
        bundle: list[int] = []
        size = 0
        for index in wanted:
            bundle.append(index)
            size += len(groups[index])
            if size >= self.batch:
                yield bundle
                bundle, size = [], 0
        if bundle:
            yield bundle

    def _path(self, jobs: Sequence[CheckJob]) -> Path | None:
        if self.cache is None:
            return None
        text = json.dumps([FORMAT, self.timeout, [asdict(job) for job in jobs]], sort_keys=True)
        return self.cache / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"

    def _get(self, jobs: Sequence[CheckJob]) -> list[list[CheckResult]] | None:
        path = self._path(jobs)
        if path is None or not path.is_file():
            return None
        try:
            rows = json.loads(path.read_text())
            return [
                [CheckResult(id=name, passed=bool(ok), got=got) for name, ok, got in job]
                for job in rows
            ]
        except (ValueError, TypeError):
            return None  # written by something else or cut short: run it again

    def _put(self, jobs: Sequence[CheckJob], results: Sequence[Sequence[CheckResult]]) -> None:
        path = self._path(jobs)
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [[[r.id, r.passed, r.got] for r in job] for job in results]
        draft = path.with_suffix(f".{os.getpid()}.tmp")
        draft.write_text(json.dumps(rows))
        draft.replace(path)
