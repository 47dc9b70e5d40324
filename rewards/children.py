"""Processes that answer a line with a line, and are ended when they do not.

Lines are numbered, and an answer begins with the number of what it answers: what a child has said
beside that is never taken for an answer.
"""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count
from subprocess import DEVNULL, PIPE

START_S = 120.0
"""For the first line, which a child says unasked."""
LONGEST = 1 << 20
"""Bytes of the longest line that a child may answer."""
ENDING_S = 5.0
"""How long a child that has closed its output has to end."""


class NoAnswer(Exception):
    """A child was late, ended, or said too much; it is gone, and the next takes its place."""


class Died(NoAnswer):
    """A child ended instead of answering, with exit code ``code``, or by signal ``-code``."""

    def __init__(self, code: int) -> None:
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        super().__init__(f"its process {how}")
        self.code = code


class Children:
    """At most ``children`` processes of one command, each busy with one line at a time; a line that
    has no child yet waits, which does not count against its ``seconds``. They are made when they
    are needed.

    Example: ``await Children([sys.executable, "echo.py"], seconds=1, children=2).ask(b"hello")``
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        seconds: float,
        children: int,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._command = command
        self._seconds = seconds
        self._env = env
        self._idle: list[Process] = []
        self._turns = asyncio.Semaphore(children)
        self._numbers = count(1)

    async def ask(self, line: bytes, seconds: float | None = None) -> bytes:
        """The child's line for this one; raises ``NoAnswer``. ``seconds`` as of the constructor
        unless they are given."""
        async with self._turns, self._ready() as child:
            number = b"%d " % next(self._numbers)
            answer = await _exchange(child, number + line + b"\n", seconds or self._seconds)
            if not answer.startswith(number):
                raise NoAnswer("an answer to something else")
            return answer.removeprefix(number)

    async def close(self) -> None:
        """End the children; the next line starts another."""
        while self._idle:
            await _end(self._idle.pop())

    @asynccontextmanager
    async def _ready(self) -> AsyncIterator[Process]:
        self._idle = [child for child in self._idle if child.returncode is None]
        child = self._idle.pop() if self._idle else await self._start()
        try:
            yield child
        except BaseException:
            _kill(child)
            raise
        self._idle.append(child)

    async def _start(self) -> Process:
        child = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
            env=self._env,
            limit=LONGEST,
            start_new_session=True,
        )
        try:
            await _exchange(child, b"", START_S)
        except NoAnswer as error:
            raise NoAnswer(f"it did not start: {error}") from error
        except BaseException:
            _kill(child)
            raise
        return child


async def _exchange(child: Process, line: bytes, seconds: float) -> bytes:
    assert child.stdin and child.stdout
    try:
        async with asyncio.timeout(seconds):
            with suppress(ConnectionError):  # it ended, which the answer tells
                child.stdin.write(line)
                await child.stdin.drain()
            answer = await child.stdout.readline()
    except TimeoutError:
        await _end(child)
        raise NoAnswer(f"no answer within {seconds:g} s") from None
    except ValueError:
        await _end(child)
        raise NoAnswer(f"an answer of more than {LONGEST} bytes") from None
    if not answer.endswith(b"\n"):
        raise await _gone(child)
    return answer


async def _gone(child: Process) -> NoAnswer:
    """How a child ended that says nothing more: to kill it at once would hide its own exit code."""
    with suppress(TimeoutError):
        async with asyncio.timeout(ENDING_S):
            await child.wait()
    went_on = child.returncode is None
    code = await _end(child)
    return NoAnswer("it closed its output and went on") if went_on else Died(code)


async def _end(child: Process) -> int:
    """End it and all that it has started; how it ended."""
    assert child.stdin
    child.stdin.close()
    _kill(child)
    return await child.wait()


def _kill(child: Process) -> None:
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
