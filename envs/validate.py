"""Many candidate programs run against their checks in boxes, with the results kept on disk."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from palestra.envs.concurrency import bounded
from palestra.envs.screen import NOT_ENDING, not_ending
from palestra.rl.types import CheckJob, CheckResult, CheckRunner, Sandbox, SandboxProvider

FORMAT = "1"


@dataclass(frozen=True, kw_only=True)
class Validator:
    """How candidates are run: ``batch`` jobs per command, ``boxes`` boxes at a time.

    A command may take ``timeout`` seconds for each of its jobs and 30 more: enough that no job is
    judged by what another one did. With ``screen``, functions that do not end are found by
    counting lines instead of waiting. ``cache`` is a folder of JSON files named by
    the hash of the jobs that they answer.

    Example: ``Validator(run_checks=run_checks, provider=Bubblewrap())``
    """

    run_checks: CheckRunner
    provider: SandboxProvider
    cache: Path | None = None
    screen: bool = True
    batch: int = 100
    boxes: int = 2
    timeout: float = 3.0

    async def run(self, groups: Sequence[Sequence[CheckJob]]) -> list[list[list[CheckResult]]]:
        """Results of every job of every group, in order; a group is what the cache remembers.

        Raises ``SandboxError`` when a box failed; groups already done stay in the cache.
        """
        results = {index: found for index, jobs in enumerate(groups) if (found := self._get(jobs))}
        missing = [index for index in range(len(groups)) if index not in results]

        async def work(members: Sequence[int]) -> None:
            flat = [job for index in members for job in groups[index]]
            answers = iter(await self._run(flat))
            for index in members:
                results[index] = [next(answers) for _ in groups[index]]
                self._put(groups[index], results[index])

        await bounded(work, list(self._bundles(groups, missing)), self.boxes)
        return [results[index] for index in range(len(groups))]

    async def _run(self, jobs: Sequence[CheckJob]) -> list[list[CheckResult]]:
        answers: list[list[CheckResult]] = []
        for start in range(0, len(jobs), self.batch):
            part = jobs[start : start + self.batch]
            async with self.provider.open() as box:
                answers += await self._batch(part, box)
        return answers

    async def _batch(self, jobs: Sequence[CheckJob], box: Sandbox) -> list[list[CheckResult]]:
        hanging = await not_ending(jobs, box) if self.screen else set()
        rest = [job for number, job in enumerate(jobs) if number not in hanging]
        limit = 30.0 + self.timeout * len(rest)
        found = iter(await self.run_checks(rest, box, timeout=limit) if rest else [])
        return [
            [CheckResult(id=check.id, passed=False, got=NOT_ENDING) for check in job.checks]
            if number in hanging
            else next(found)
            for number, job in enumerate(jobs)
        ]

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
        text = repr((FORMAT, self.screen, list(jobs)))
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
