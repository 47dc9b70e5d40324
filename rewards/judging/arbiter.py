"""Questions to a judge until it answers: remembered, within a budget, a bounded number at once."""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import dataclass, replace
from typing import Protocol
from weakref import WeakValueDictionary

from palestra.rewards.config import JudgeConfig
from palestra.rewards.judging.questions import Question
from palestra.rewards.judging.verdicts import verdict_in
from palestra.rl.errors import Abstain, InfraError, boundary
from palestra.rl.types import Judge, Judgement, JudgementStore

JUDGE = "judge"
"""Under this name the provenance of a reward of siblings has its judge."""


class JudgeError(InfraError):
    """A judge could not be asked."""


class Decider(Protocol):
    """Whom a reward asks: the ``Arbiter`` of the run, also from a process of its own."""

    async def decide(self, question: Question, *, repeat: int = 0) -> Judgement:
        """A judgement with a choice; raises as ``Arbiter.decide``."""
        ...


@dataclass(slots=True)
class Spent:
    """What the questions of one step have cost, and what became of them."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    remembered: int = 0
    no_verdict: int = 0
    abstained: int = 0
    over_budget: int = 0
    failed: int = 0

    @property
    def tokens(self) -> int:
        """Tokens read and written."""
        return self.input_tokens + self.output_tokens


class Arbiter:
    """Asks one judge, and keeps every judgement in ``store``.

    What the store knows is not asked again and costs nothing; what a step that was broken off has
    cost counts for its budget when it goes on. ``seed`` is the run's; it and the question fix the
    seed of every reply.
    """

    def __init__(
        self, judge: Judge, config: JudgeConfig, store: JudgementStore, *, seed: int = 0
    ) -> None:
        self.judge = judge
        self.config = config
        self.store = store
        self.seed = seed
        self._gate = asyncio.Semaphore(config.max_in_flight)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._steps: dict[int, Spent] = {}

    async def decide(self, question: Question, *, repeat: int = 0) -> Judgement:
        """A judgement with a choice; with another ``repeat`` an independent one.

        A reply without a verdict is asked for again with another seed, ``tries`` times in all.
        Raises ``Abstain`` when none had one or the step's budget is spent, ``JudgeError`` when the
        judge failed.
        """
        for attempt in range(self.config.tries):
            judgement = await self.ask(question, sample=repeat * self.config.tries + attempt)
            if judgement.choice is not None:
                return judgement
        self._spent(question.step).abstained += 1
        raise Abstain(
            f"judge {self.judge.name} gave no verdict on {', '.join(question.about)} "
            f"in {self.config.tries} replies"
        )

    async def ask(self, question: Question, *, sample: int = 0) -> Judgement:
        """One reply, with or without a verdict. Raises as ``decide``."""
        spent = self._spent(question.step)
        seed = self._seed(question, sample)
        key = _digest(self.judge.name, question, self.config.max_tokens, seed)
        # Siblings that wrote the same are asked about at once: the first pays for all.
        async with self._locks.setdefault(key, asyncio.Lock()):
            known = self.store.judgement(key)
            if known is not None:
                spent.remembered += 1
                free = replace(known.opinion, input_tokens=0, output_tokens=0)
                return replace(known, about=question.about, opinion=free)
            return await self._asked(question, key, seed)

    async def _asked(self, question: Question, key: str, seed: int) -> Judgement:
        spent = self._spent(question.step)
        async with self._gate:
            self._ensure_budget(question.step)
            spent.calls += 1
            try:
                async with boundary(JudgeError, f"judge {self.judge.name}"):
                    opinion = await self.judge.ask(
                        question.messages, max_tokens=self.config.max_tokens, seed=seed
                    )
            except InfraError:
                spent.failed += 1
                raise
            except Abstain:
                spent.abstained += 1
                raise
        spent.input_tokens += opinion.input_tokens
        spent.output_tokens += opinion.output_tokens
        choice = verdict_in(opinion.text, question.answers)
        spent.no_verdict += choice is None
        judgement = Judgement(
            key=key,
            step=question.step,
            group_id=question.group_id,
            about=question.about,
            messages=question.messages,
            answers=question.answers,
            choice=choice,
            opinion=opinion,
        )
        self.store.add_judgement(judgement)
        return judgement

    def metrics(self, step: int) -> dict[str, float]:
        """What the questions of a step have cost so far."""
        spent = self._spent(step)
        return {
            "judge/calls": float(spent.calls),
            "judge/input_tokens": float(spent.input_tokens),
            "judge/output_tokens": float(spent.output_tokens),
            "judge/remembered": float(spent.remembered),
            "judge/no_verdict": float(spent.no_verdict),
            "judge/abstained": float(spent.abstained),
            "judge/over_budget": float(spent.over_budget),
            "judge/failed": float(spent.failed),
        }

    def _spent(self, step: int) -> Spent:
        """What a step has cost, with what the store knows of it from before a kill."""
        if step not in self._steps:
            known = [
                j for j in self.store.judgements_in(step) if j.opinion.judge == self.judge.name
            ]
            self._steps[step] = Spent(
                calls=len(known),
                input_tokens=sum(j.opinion.input_tokens for j in known),
                output_tokens=sum(j.opinion.output_tokens for j in known),
                no_verdict=sum(j.choice is None for j in known),
            )
        return self._steps[step]

    def _ensure_budget(self, step: int) -> None:
        spent, config = self._spent(step), self.config
        over_calls = 0 < config.calls_per_step <= spent.calls
        over_tokens = 0 < config.tokens_per_step <= spent.tokens
        if over_calls or over_tokens:
            spent.over_budget += 1
            raise Abstain(f"the budget of judge {self.judge.name} for step {step} is spent")

    def _seed(self, question: Question, sample: int) -> int:
        """A 31-bit seed of its own for every reply."""
        text = f"{self.seed}/{sample}/{_text(question)}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest()) >> 1


def _digest(name: str, question: Question, max_tokens: int, seed: int) -> str:
    text = f"{name}/{max_tokens}/{seed}/{_text(question)}"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _text(question: Question) -> str:
    return json.dumps([[message.role, message.content] for message in question.messages])
