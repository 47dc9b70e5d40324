"""Checks in boxes that are kept warm: a grade costs a fork, not the start of two programs.

A zygote (``zygote.py``) waits in a box of its own and forks a confined worker per grade, one at a
time; grades at the same time have a zygote each. What the host sends, reads and concludes is the
same as with a fresh box per grade (``checks``).
"""

from __future__ import annotations

import marshal
import subprocess
from collections.abc import Sequence
from typing import cast

from palestra.rl.errors import SandboxError
from palestra.rl.types import CheckJob, CheckResult, Sandbox, SandboxProvider
from palestra.sandbox.base import completed
from palestra.sandbox.checks import CHECK_S, Fresh, judged, run_checks
from palestra.sandbox.plan import plan_of
from palestra.sandbox.shipping import framed
from palestra.sandbox.warm_box import WarmBackend, Zygote, tried

GRADES = 1000
"""After so many a zygote is replaced, worn or not."""

_PROBLEMS: dict[tuple[str, int | None], str] = {}


class Warm:
    """Runs checks by zygotes, which it starts when they are needed; up to ``spare`` are kept.

    Usable from several event loops. What is left of it ends with ``close``, or when nobody holds
    it any more.

    Example: ``[results] = await Warm(Bubblewrap()).run([job])``
    """

    def __init__(self, backend: WarmBackend, *, spare: int = 4, grades: int = GRADES) -> None:
        self._backend = backend
        self._spare = spare
        self._grades = grades
        self._idle: list[Zygote] = []

    async def run(
        self, jobs: Sequence[CheckJob], *, timeout: float = 10.0, check_s: float = CHECK_S
    ) -> list[list[CheckResult]]:
        """What ``checks.run_checks`` returns and raises for a box that nothing else was run in."""
        if not any(job.checks for job in jobs):
            return [[] for _ in jobs]
        if any(job.image for job in jobs):  # a zygote's box is as it is
            fresh = Fresh(cast(SandboxProvider, self._backend))
            return await fresh.run(jobs, timeout=timeout, check_s=check_s)
        plan, secret = plan_of(jobs, check_s)
        zygote = await self._take()
        try:
            ended = await zygote.grade(framed(marshal.dumps(plan, 2)) + secret, timeout)
            return judged(jobs, ended)
        except BaseException:
            zygote.worn = True
            raise
        finally:
            if zygote.fit(self._grades) and len(self._idle) < self._spare:
                self._idle.append(zygote)
            else:
                await completed(zygote.close())

    async def run_checks(
        self,
        jobs: Sequence[CheckJob],
        box: Sandbox,
        *,
        timeout: float = 10.0,
        check_s: float = CHECK_S,
    ) -> list[list[CheckResult]]:
        """A ``CheckRunner`` that leaves ``box`` alone where there is one job; many share it."""
        if len(jobs) == 1:
            return await self.run(jobs, timeout=timeout, check_s=check_s)
        return await run_checks(jobs, box, timeout=timeout, check_s=check_s)

    async def close(self) -> None:
        """End the zygotes that wait; the next ``run`` starts another."""
        while self._idle:
            await self._idle.pop().close()

    async def _take(self) -> Zygote:
        while self._idle:
            zygote = self._idle.pop()
            if zygote.fit(self._grades):
                return zygote
            await completed(zygote.close())
        return await Zygote.start(self._backend)


def warm(backend: SandboxProvider, *, spare: int = 4) -> Warm | None:
    """Warm boxes of ``backend``; None where they do not work: then each grade gets a fresh box."""
    return None if problem_of(backend) else Warm(cast(WarmBackend, backend), spare=spare)


def problem_of(backend: SandboxProvider) -> str:
    """Why a backend cannot keep warm boxes on this machine; empty if it can. Tries it, once."""
    if not hasattr(backend, "warm"):
        return "its boxes start with a process of their own"
    able = cast(WarmBackend, backend)
    key = (backend.name, able.user)
    if key not in _PROBLEMS:
        try:
            _PROBLEMS[key] = tried(able.warm(able.limits), able.limits)
        except (OSError, subprocess.TimeoutExpired, SandboxError) as error:
            _PROBLEMS[key] = str(error)
    return _PROBLEMS[key]
