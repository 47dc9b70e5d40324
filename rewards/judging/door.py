"""The run's judge for a reward in another process: a question goes in, a judgement comes out.

Both are lines of JSON over a Unix socket that is there while the reward is asked and that nobody
but the run's user can open. Who the judge is, its key, its budget and its memory stay with the run.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import TypeAdapter

from palestra.rewards.judging.arbiter import Arbiter, JudgeError
from palestra.rewards.judging.questions import Question
from palestra.rl.errors import Abstain, InfraError
from palestra.rl.types import Judgement, Trajectory

LONGEST = 1 << 20
"""Bytes of the longest question and of the longest judgement."""
AT_ONCE = 32
"""Questions that one process has on their way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    question: Question
    repeat: int


@asynccontextmanager
async def door(arbiter: Arbiter, judged: Trajectory) -> AsyncIterator[str]:
    """The path at which ``FarArbiter`` reaches ``arbiter``, within; what is still asked at the end
    is given up. Questions count for the step and the group of ``judged``, whatever they say."""
    asking: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        asking.add(task)
        try:
            with suppress(ConnectionError, asyncio.CancelledError):
                writer.write(_line(await _answer(reader, arbiter, judged)))
                await writer.drain()
        finally:
            asking.discard(task)
            writer.close()

    with TemporaryDirectory(prefix="palestra-") as folder:
        path = f"{folder}/judge"
        async with await asyncio.start_unix_server(serve, path, limit=LONGEST):
            try:
                yield path
            finally:
                for task in asking:
                    task.cancel()


class FarArbiter:
    """Implements ``arbiter.Decider`` in the process of a reward."""

    def enter(self, path: str) -> None:
        """Ask at this ``door`` from now on: there is another one for each episode."""
        self._path = path
        self._gate = asyncio.Semaphore(AT_ONCE)

    async def decide(self, question: Question, *, repeat: int = 0) -> Judgement:
        """As of ``Arbiter``; the opinion comes without its tokens."""
        asked = _Asked(question=question, repeat=repeat)
        async with self._gate:
            answer = await self._exchange(_line(_questions().dump_python(asked, mode="json")))
        if "abstain" in answer:
            raise Abstain(answer["abstain"])
        if "error" in answer:
            raise JudgeError(answer["error"])
        return _judgements().validate_python(answer["judgement"])

    async def _exchange(self, line: bytes) -> dict[str, Any]:
        if len(line) > LONGEST:
            raise ValueError(f"a question of {len(line)} bytes; the longest has {LONGEST}")
        reader, writer = await asyncio.open_unix_connection(self._path, limit=LONGEST)
        try:
            writer.write(line)
            answer = await reader.readline()
        finally:
            writer.close()
        found: dict[str, Any] = json.loads(answer or b'{"error": "the judge hung up"}')
        return found


async def _answer(
    reader: asyncio.StreamReader, arbiter: Arbiter, judged: Trajectory
) -> dict[str, Any]:
    """``{"judgement": ...}``, ``{"abstain": reason}`` or ``{"error": reason}``."""
    try:
        asked = _questions().validate_python(json.loads(await reader.readline()))
        question = replace(asked.question, step=judged.step, group_id=judged.group_id)
        said = await arbiter.decide(question, repeat=asked.repeat)
    except Abstain as why:
        return {"abstain": str(why)}
    except (InfraError, ValueError) as error:
        return {"error": str(error)}
    short = replace(said, opinion=replace(said.opinion, turn=None))
    return {"judgement": _judgements().dump_python(short, mode="json")}


def _line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row).encode() + b"\n"


@cache
def _questions() -> TypeAdapter[_Asked]:
    return TypeAdapter(_Asked)


@cache
def _judgements() -> TypeAdapter[Judgement]:
    return TypeAdapter(Judgement)
