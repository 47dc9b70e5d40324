"""What both sides of the comparison share: the reward and the line protocol with the driver.

Standard library only: it is imported by Palestra's Python and by the one that TRL lives in.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


def reward(token_ids: Sequence[int]) -> float:
    """Share of the completion's ids that are multiples of four: cheap, deterministic, learnable."""
    return sum(token % 4 == 0 for token in token_ids) / len(token_ids)


def digest(prompts: Iterable[Sequence[int]]) -> str:
    """Fingerprint of prompt ids, by which the driver checks that both sides saw the same ones."""
    return hashlib.sha1(json.dumps([list(ids) for ids in prompts]).encode()).hexdigest()[:12]


def read_plan(path: str) -> dict:
    """The settings of this comparison, as the driver wrote them."""
    return json.loads(Path(path).read_text())


class Wire:
    """One JSON object per line: commands on stdin, answers on what was stdout.

    Whatever libraries print goes to stderr afterwards, and their children cannot read our stdin.
    """

    def __init__(self) -> None:
        self._commands = os.fdopen(os.dup(0), "r")
        self._answers = os.fdopen(os.dup(1), "w")
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(2, 1)

    def receive(self) -> dict:
        """The next command; ``quit`` when the driver is gone. Blocks without using the CPU."""
        line = self._commands.readline()
        return json.loads(line) if line else {"do": "quit"}

    def send(self, **answer: object) -> None:
        """Answer the last command."""
        print(json.dumps(answer), file=self._answers, flush=True)


class Lanes:
    """Seconds by name; a name may be entered many times, names may nest."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def lane(self, name: str) -> Iterator[None]:
        """Add the time spent inside to ``name``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - start)

    def add(self, name: str, seconds: float) -> None:
        """Add seconds measured elsewhere."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def take(self) -> dict[str, float]:
        """Everything since the last call."""
        seconds, self.seconds = self.seconds, {}
        return seconds
