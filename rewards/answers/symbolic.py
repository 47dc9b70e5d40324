"""Answers that are an expression, compared by computer algebra in a process of its own.

Simplifying an expression that somebody else wrote can take any time and memory, so it is done by a
child (``algebra``) with limits, which is ended and replaced when it does not answer.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import PIPE

from palestra.rl.errors import GraderError, TaskError

SECONDS = 6.0
"""For one comparison, by the clock; starting the child takes a few seconds more."""
START_S = 60.0
LONGEST = 1000
"""Characters of the longest answer that is read; ours."""


class Algebra:
    """A child that compares expressions, one at a time; made when it is first needed.

    Example: ``await Algebra().wrong("x^2 + 2x + 1", "(x+1)^2")`` is empty
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._child: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    async def wrong(self, text: str, expected: str) -> str:
        """Why ``text`` is not what is expected, empty if it is; raises as a ``Verifier``."""
        if len(text) > LONGEST:
            return f"longer than {LONGEST} characters"
        async with self._turn, self._ready() as child:
            row = json.dumps([text, expected]).encode() + b"\n"
            line = await _exchange(child, row, self._seconds)
        if line is None:
            return "stopped at the time limit"
        answer = json.loads(line)
        if "expected" in answer:
            raise TaskError(f"expected {expected!r} is not an expression")
        return str(answer["wrong"])

    async def close(self) -> None:
        """End the child; the next comparison starts another."""
        child, self._child = self._child, None
        if child is not None and child.returncode is None:
            child.kill()
            await child.wait()

    @asynccontextmanager
    async def _ready(self) -> AsyncIterator[asyncio.subprocess.Process]:
        child = self._child or await self._start()
        self._child = None
        try:
            yield child
        except BaseException:
            child.kill()
            raise
        if child.returncode is None and child.stdin and not child.stdin.is_closing():
            self._child = child

    async def _start(self) -> asyncio.subprocess.Process:
        command = [sys.executable, "-I", str(Path(__file__).with_name("algebra.py"))]
        child = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, env={})
        try:
            line = await _exchange(child, b"", START_S)
        except BaseException:
            child.kill()
            raise
        if line is None:
            raise GraderError("the process that compares expressions did not start")
        return child


async def _exchange(child: asyncio.subprocess.Process, row: bytes, seconds: float) -> bytes | None:
    """One line back; None, and the child is ended, when none comes in time."""
    assert child.stdin and child.stdout
    try:
        async with asyncio.timeout(seconds):
            child.stdin.write(row)
            await child.stdin.drain()
            if line := await child.stdout.readline():
                return line
    except (TimeoutError, ConnectionError):
        pass
    child.stdin.close()
    if child.returncode is None:
        child.kill()
    await child.wait()
    return None


_ALGEBRAS: dict[asyncio.AbstractEventLoop, Algebra] = {}


async def symbolic(text: str, expected: str) -> str:
    """Right when answer and ``expected``, both LaTeX or plain, are the same value, expression, set
    or interval: ``1/2`` and ``\\\\frac{1}{2}``, ``(x+1)^2`` and ``x^2+2x+1``."""
    loop = asyncio.get_running_loop()
    for old in [old for old in _ALGEBRAS if old.is_closed()]:
        del _ALGEBRAS[old]
    return await _ALGEBRAS.setdefault(loop, Algebra()).wrong(text, expected)
