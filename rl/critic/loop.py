"""The closed loop of one step (Kimi K2 report, section 3.2.2): from verified episodes to lessons.

    pairs      right and wrong episodes of one task, of this step and a few before it
    held out   pairs of some tasks are only asked about: how often the critic is right
    lessons    the others' questions, as preference samples or as judged episodes

Everything is a function of the seed, the step and the journal, which also has every reply: a step
that is learned again after a crash asks nothing twice and learns the same.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TypeAlias

from palestra.rewards.judging.arbiter import Arbiter
from palestra.rewards.judging.questions import FIRST, SECOND, TIE, Question
from palestra.rewards.judging.together import together
from palestra.rewards.judging.verdicts import written
from palestra.rl.advantage import samples
from palestra.rl.config import CriticConfig
from palestra.rl.critic.judged import judged_group, score
from palestra.rl.critic.pairs import Pair, is_heldout, pairs_of
from palestra.rl.critic.preference import (
    Verdicts,
    margins,
    preference_metrics,
    preference_samples,
)
from palestra.rl.critic.trust import ACCURACY, accurate, change_of_trust, last_accuracy
from palestra.rl.errors import Abstain
from palestra.rl.journal import Journal
from palestra.rl.presets import Rule
from palestra.rl.types import Judgement, Sample, Trainer, Trajectory
from palestra.rollout.tokens import Chat

Ask: TypeAlias = Callable[[Trajectory, Trajectory, int], Question]
"""(shown first, shown second, step) -> which of them is better? Answers as ``comparison``'s."""


@dataclass(frozen=True, kw_only=True)
class Critic:
    """The policy as a judge that is trained. ``max_context`` is the most tokens that a question and
    its verdict may have; ``say`` is told when rubric rewards are switched off or on again."""

    config: CriticConfig
    arbiter: Arbiter
    chat: Chat
    ask: Ask
    seed: int
    max_context: int
    say: Callable[[str], None] = lambda line: None

    def due(self, step: int) -> bool:
        """Is this a step with lessons?"""
        return step % self.config.freq == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lessons:
    """What a step's batch gets for the critic: samples of judged episodes by question, and
    preference samples, which belong into the first update."""

    judged: Sequence[Sequence[Sample]] = ()
    preferred: Sequence[Sample] = ()
    metrics: dict[str, float] = field(default_factory=dict)


NONE = Lessons()


@dataclass(frozen=True, slots=True)
class _Exam:
    """One question, which of its answers is right, and whose task it is about."""

    question: Question
    answer: int
    task_id: str


async def study(
    step: int,
    played: Sequence[Trajectory],
    critic: Critic | None,
    journal: Journal,
    trainer: Trainer,
    rule: Rule,
) -> Lessons:
    """The lessons of a step; none where none are due. The engine answers first, then the learner
    scores: nothing is asked of the engine after this until weights are published."""
    if critic is None or not critic.due(step):
        return NONE
    config = critic.config
    first = max(1, step - config.window + 1)
    recent = [t for number in range(first, step) for t in journal.trajectories(number)]
    known, heldout = _pairs(step, [*recent, *played], critic)
    metrics = {"critic/pairs": float(len(known)), "critic/heldout_pairs": float(len(heldout))}
    metrics |= _examined(
        step, await _asked(_exams(heldout, critic, step), critic, 1), critic, journal
    )
    exams = _exams(known, critic, step)
    if config.loss == "rl":
        asked = await _asked(exams, critic, config.samples)
        groups = [judged_group(j, e.answer, e.task_id, config.temperature) for e, j in asked if j]
        scores = [t.reward.total for group in groups for t in group.trajectories if t.reward]
        metrics |= {"critic/reward": fmean(scores)} if scores else {}
        return Lessons(judged=samples(groups, rule), metrics=metrics)
    verdicts = [one for exam in exams if (one := _verdicts(exam, critic))]
    found = margins(verdicts, await _scored(verdicts, trainer))
    metrics |= preference_metrics(found, config.beta)
    preferred = preference_samples(
        verdicts, found, beta=config.beta, anchor=config.anchor, coef=config.coef
    )
    return Lessons(preferred=preferred, metrics=metrics)


def _examined(
    step: int,
    asked: Sequence[tuple[_Exam, Sequence[Judgement]]],
    critic: Critic,
    journal: Journal,
) -> dict[str, float]:
    """The mean score over held-out questions, and whether rubric rewards count from now on; empty
    where nothing was asked."""
    marks = [score(one, exam.answer, TIE) for exam, replies in asked for one in replies]
    if not marks:
        return {}
    now, limit = fmean(marks), critic.config.min_accuracy
    if line := change_of_trust(step, last_accuracy(step, journal), now, limit):
        critic.say(line)
    return {ACCURACY: now, "critic/trusted": float(accurate(now, limit))}


def _pairs(
    step: int, played: Sequence[Trajectory], critic: Critic
) -> tuple[list[Pair], list[Pair]]:
    """Those to learn from, and those to be measured on."""
    config = critic.config
    sides: tuple[list[Trajectory], list[Trajectory]] = ([], [])
    for trajectory in played:
        sides[is_heldout(trajectory.task_id, config.heldout, critic.seed)].append(trajectory)
    rng = random.Random(f"{critic.seed}/critic/{step}")
    return pairs_of(sides[0], config.pairs, rng), pairs_of(sides[1], config.heldout_pairs, rng)


def _exams(pairs: Sequence[Pair], critic: Critic, step: int) -> list[_Exam]:
    """Both orders of each pair."""
    return [
        _Exam(critic.ask(*shown, step), answer, pair.right.task_id)
        for pair in pairs
        for shown, answer in zip(pair.orders, (FIRST, SECOND), strict=True)
    ]


async def _asked(
    exams: Sequence[_Exam], critic: Critic, times: int
) -> list[tuple[_Exam, list[Judgement]]]:
    """Every question ``times`` times; what the judge abstains from is missing."""

    async def reply(exam: _Exam, number: int) -> Judgement | None:
        try:
            return await critic.arbiter.ask(exam.question, sample=number)
        except Abstain:
            return None

    replies = await together(reply(e, n) for e in exams for n in range(times))
    own = (replies[start : start + times] for start in range(0, len(replies), times))
    return [(e, [j for j in js if j is not None]) for e, js in zip(exams, own, strict=True)]


def _verdicts(exam: _Exam, critic: Critic) -> Verdicts | None:
    """The question and both verdicts as tokens, each as the whole of a reply; None where they do
    not fit into the context."""
    chat = critic.chat
    right, wrong = exam.answer, SECOND if exam.answer == FIRST else FIRST
    given = (written(exam.question.answers[answer]) for answer in (right, wrong))
    said = [(*chat.tokenizer.spell(text), chat.tokenizer.eos_id) for text in given]
    prompt = tuple(chat.prompt(exam.question.messages, ()))
    if len(prompt) + max(map(len, said)) > critic.max_context:
        return None
    return Verdicts(prompt=prompt, right=said[0], wrong=said[1])


async def _scored(verdicts: Sequence[Verdicts], trainer: Trainer) -> list[list[float]]:
    if not verdicts:
        return []
    return await trainer.logprobs([ids for one in verdicts for ids in one.sequences])
