"""Answers that are an expression, compared by computer algebra in processes of their own.

Simplifying an expression that somebody else wrote can take any time and memory, so it is done by
children (``algebra``) with limits, each replaced when it ends. Time is the processor's: on a busy
machine an answer takes longer, and is not wrong for it.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE

from palestra.rl.errors import GraderError, TaskError

CPU_S = 5
"""Processor seconds for one comparison, rounded up to whole ones of its child."""
SILENT_S = 120.0
"""By the clock: a child that neither answers nor ends by then is a fault of the machine."""
CHILDREN = 4
"""So that one expression that takes its time holds up few others; a child begins with 60 MiB."""
LONGEST = 1000
"""Characters of the longest answer that is read; ours."""


class Algebra:
    """At most ``children`` that compare an expression each; made when they are needed.

    Example: ``await Algebra().wrong("x^2 + 2x + 1", "(x+1)^2")`` is empty
    """

    def __init__(
        self, *, cpu_s: int = CPU_S, silent_s: float = SILENT_S, children: int = CHILDREN
    ) -> None:
        self._cpu_s = cpu_s
        self._silent_s = silent_s
        self._idle: list[asyncio.subprocess.Process] = []
        self._turns = asyncio.Semaphore(children)

    async def wrong(self, text: str, expected: str) -> str:
        """Why ``text`` is not what is expected, empty if it is; raises as a ``Verifier``."""
        if len(text) > LONGEST:
            return f"longer than {LONGEST} characters"
        async with self._turns:
            line = await self._reply(json.dumps([text, expected]).encode() + b"\n")
        if not line:
            return "not to be compared within the limits"
        answer = json.loads(line)
        if "expected" in answer:
            raise TaskError(f"expected {expected!r} is not an expression")
        return str(answer["wrong"])

    async def close(self) -> None:
        """End the children; the next comparison starts another."""
        while self._idle:
            child = self._idle.pop()
            if child.returncode is None:
                child.kill()
                await child.wait()

    async def _reply(self, row: bytes) -> bytes:
        """A child's answer; empty where the row ended it."""
        for fresh in (False, True):  # an idle one may have been gone before it was asked
            async with self._ready(fresh=fresh) as child:
                if line := await _exchange(child, row, self._silent_s):
                    return line
            if child.returncode == -signal.SIGXCPU:
                break
        return b""

    @asynccontextmanager
    async def _ready(self, *, fresh: bool) -> AsyncIterator[asyncio.subprocess.Process]:
        child = await self._start() if fresh or not self._idle else self._idle.pop()
        try:
            yield child
        except BaseException:
            _kill(child)
            raise
        if child.returncode is None:
            self._idle.append(child)

    async def _start(self) -> asyncio.subprocess.Process:
        program = str(Path(__file__).with_name("algebra.py"))
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", program, str(self._cpu_s)),
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
            env={},
        )
        try:
            if not await _exchange(child, b"", self._silent_s):
                raise GraderError("the process that compares expressions did not start")
        except BaseException:
            _kill(child)
            raise
        return child


async def _exchange(child: asyncio.subprocess.Process, row: bytes, seconds: float) -> bytes:
    """One line back; empty when the child ends instead. Raises ``GraderError`` when it does
    neither in time."""
    assert child.stdin and child.stdout
    try:
        async with asyncio.timeout(seconds):
            with suppress(ConnectionError):
                child.stdin.write(row)
                await child.stdin.drain()
            line = await child.stdout.readline()
            if not line:
                await child.wait()
            return line
    except TimeoutError as error:
        raise GraderError("the process that compares expressions does not answer") from error


def _kill(child: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        child.kill()


_ALGEBRAS: dict[asyncio.AbstractEventLoop, Algebra] = {}


async def symbolic(text: str, expected: str) -> str:
    """Right when answer and ``expected``, both LaTeX or plain, are the same value, expression, set
    or interval: ``1/2`` and ``\\\\frac{1}{2}``, ``(x+1)^2`` and ``x^2+2x+1``."""
    loop = asyncio.get_running_loop()
    for old in [old for old in _ALGEBRAS if old.is_closed()]:
        del _ALGEBRAS[old]
    return await _ALGEBRAS.setdefault(loop, Algebra()).wrong(text, expected)
