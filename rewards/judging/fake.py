"""Stand-ins for tests of judges and benchmarks: no model. The real job never uses them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

from palestra.rewards.judging.verdicts import written
from palestra.rl.types import Judgement, Message, Opinion

Rule: TypeAlias = Callable[[Sequence[Message], int], str]
"""(messages, seed) -> the judge's reply."""

_KEY = re.compile(r"\AThe key is (\w+)\.\n")


class MemoryStore:
    """Implements ``rl.types.JudgementStore`` in memory; ``kept`` has the judgements by key."""

    def __init__(self) -> None:
        self.kept: dict[str, Judgement] = {}

    def judgement(self, key: str) -> Judgement | None:
        """The judgement with this key, if it is here."""
        return self.kept.get(key)

    def judgements_in(self, step: int) -> list[Judgement]:
        """Those of a step, in the order of asking."""
        return [one for one in self.kept.values() if one.step == step]

    def add_judgement(self, judgement: Judgement) -> None:
        """Keep it; a second one with the same key changes nothing."""
        self.kept.setdefault(judgement.key, judgement)


class RuleJudge:
    """Implements ``rl.types.Judge`` by a rule; a reply costs 100 tokens to read and 10 to write.

    ``seeds`` are those of the questions so far, ``waiting_at_most`` is how many waited at once.
    """

    def __init__(self, rule: Rule, name: str = "rule") -> None:
        self.rule = rule
        self.name = name
        self.seeds: list[int] = []
        self.waiting_at_most = 0
        self._waiting = 0

    async def ask(self, messages: Sequence[Message], *, max_tokens: int, seed: int = 0) -> Opinion:
        """What the rule says."""
        self.seeds.append(seed)
        self._waiting += 1
        self.waiting_at_most = max(self.waiting_at_most, self._waiting)
        try:
            await asyncio.sleep(0)  # as every real judge, it lets others run
            text = self.rule(messages, seed)
        finally:
            self._waiting -= 1
        return Opinion(text=text, judge=self.name, input_tokens=100, output_tokens=10)


def key_in(messages: Sequence[Message]) -> str:
    """The key of a question."""
    found = _KEY.match(messages[-1].content)
    if found is None:
        raise ValueError("this is no question of ours")
    return found[1]


def quoted_in(messages: Sequence[Message]) -> dict[str, str]:
    """What a question quotes, by name: ``task`` and ``first``, ``second`` or ``response``."""
    key = key_in(messages)
    fence = re.compile(rf"^BEGIN (\w+)-{key}\n(.*?)\nEND \1-{key}$", re.DOTALL | re.MULTILINE)
    return dict(fence.findall(messages[-1].content))


def verdict(messages: Sequence[Message], name: str) -> str:
    """The line that gives the answer ``name``: ``first``, ``meets``, ..."""
    return written(f"{name}-{key_in(messages)}")


def preferring(value: Callable[[str], float]) -> Rule:
    """A judge without faults: prefers the response of higher value; every one meets everything."""

    def rule(messages: Sequence[Message], seed: int) -> str:
        quoted = quoted_in(messages)
        if "response" in quoted:
            return verdict(messages, "meets")
        first, second = value(quoted["first"]), value(quoted["second"])
        better = "tie" if first == second else "first" if first > second else "second"
        return f"That one.\n{verdict(messages, better)}"

    return rule
