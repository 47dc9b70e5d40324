"""Answers that are an expression, compared by computer algebra in processes of their own.

Simplifying an expression that somebody else wrote can take any time and memory, so it is done by
children (``algebra``) with limits, each ended and replaced when it does not answer.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE

from palestra.rl.errors import GraderError, TaskError

SECONDS = 6.0
"""For one comparison, by the clock; starting the child takes a few seconds more."""
START_S = 60.0
CHILDREN = 4
"""So that one expression that takes its time holds up few others; a child begins with 60 MiB."""
LONGEST = 1000
"""Characters of the longest answer that is read; ours."""


class Algebra:
    """At most ``children`` that compare an expression each; made when they are needed.

    Example: ``await Algebra().wrong("x^2 + 2x + 1", "(x+1)^2")`` is empty
    """

    def __init__(self, seconds: float = SECONDS, children: int = CHILDREN) -> None:
        self._seconds = seconds
        self._idle: list[asyncio.subprocess.Process] = []
        self._turns = asyncio.Semaphore(children)

    async def wrong(self, text: str, expected: str) -> str:
        """Why ``text`` is not what is expected, empty if it is; raises as a ``Verifier``."""
        if len(text) > LONGEST:
            return f"longer than {LONGEST} characters"
        async with self._turns, self._ready() as child:
            row = json.dumps([text, expected]).encode() + b"\n"
            line = await _exchange(child, row, self._seconds)
        if line is None:
            return "stopped at the time limit"
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

    @asynccontextmanager
    async def _ready(self) -> AsyncIterator[asyncio.subprocess.Process]:
        child = self._idle.pop() if self._idle else await self._start()
        try:
            yield child
        except BaseException:
            child.kill()
            raise
        if child.returncode is None and child.stdin and not child.stdin.is_closing():
            self._idle.append(child)

    async def _start(self) -> asyncio.subprocess.Process:
        command = [sys.executable, "-I", str(Path(__file__).with_name("algebra.py"))]
        child = await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env={}
        )
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
