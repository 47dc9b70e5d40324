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
from pathlib import Path

from palestra.rewards.children import Children, Died, NoAnswer
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
        program = str(Path(__file__).with_name("algebra.py"))
        command = [sys.executable, "-I", program, str(cpu_s)]
        self.children = Children(command, seconds=silent_s, children=children, env={})

    async def wrong(self, text: str, expected: str) -> str:
        """Why ``text`` is not what is expected, empty if it is; raises as a ``Verifier``."""
        if len(text) > LONGEST:
            return f"longer than {LONGEST} characters"
        row = json.dumps([text, expected]).encode()
        try:
            line = await self._line(row)
        except Died as died:
            if died.code == -signal.SIGKILL:  # by the machine: no limit of a child ends it so
                raise GraderError(f"the process that compares expressions: {died}") from died
            return "not to be compared within the limits"
        except NoAnswer as error:
            raise GraderError(f"the process that compares expressions: {error}") from error
        answer = json.loads(line)
        if "expected" in answer:
            raise TaskError(f"expected {expected!r} is not an expression")
        return str(answer["wrong"])

    async def _line(self, row: bytes) -> bytes:
        try:
            return await self.children.ask(row)
        except Died as died:
            if died.code == -signal.SIGXCPU:
                raise
            return await self.children.ask(row)  # it may have been gone before it was asked


_ALGEBRAS: dict[asyncio.AbstractEventLoop, Algebra] = {}


async def symbolic(text: str, expected: str) -> str:
    """Right when answer and ``expected``, both LaTeX or plain, are the same value, expression, set
    or interval: ``1/2`` and ``\\\\frac{1}{2}``, ``(x+1)^2`` and ``x^2+2x+1``."""
    loop = asyncio.get_running_loop()
    for old in [old for old in _ALGEBRAS if old.is_closed()]:
        del _ALGEBRAS[old]
    return await _ALGEBRAS.setdefault(loop, Algebra()).wrong(text, expected)
