"""Episodes of the journal as answers: the conversation, its tokens, its group."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from types import MappingProxyType

from pydantic import TypeAdapter

from palestra.deploy.dashboard import models
from palestra.deploy.episode_text import vouched
from palestra.deploy.token_text import TokenPieces
from palestra.rl.journal import Journal
from palestra.rl.types import Judgement, Message, Reward, ToolCall, Trajectory, Turn

SHOWN = frozenset(
    {
        *("id", "group_id", "task_id", "step", "prompt", "turns", "stop", "outcome", "temperature"),
        *("reward", "verdict", "reason", "patch", "seconds", "abstained"),
    }
)
"""Fields of a trajectory that have their own place; whatever else it holds is a note."""


def find(journal: Journal, name: str) -> tuple[Trajectory, str] | None:
    """A training episode by its id, or ``eval/SPLIT/TASK/SAMPLE@STEP``; with its split."""
    found = journal.trajectory(name)
    if found is not None:
        return found, "train"
    head, _, step = name.rpartition("@")
    kind, _, rest = head.partition("/")
    split, _, rest = rest.partition("/")
    task, _, sample = rest.rpartition("/")
    if kind != "eval" or not (_short_number(step) and _short_number(sample)):
        return None
    evaluated = journal.eval_trajectory(int(step), split, task, int(sample))
    return None if evaluated is None else (evaluated, split)


def detail(
    name: str,
    split: str,
    t: Trajectory,
    shaped: Reward | None = None,
    advantage: float | None = None,
    judgements: Sequence[Judgement] = (),
) -> models.EpisodeDetail:
    """One episode; ``shaped`` is the reward that the step learned from, if that differs, and
    ``judgements`` are those of its group."""
    verdict = t.verdict
    return models.EpisodeDetail(
        id=name,
        split=split,
        step=t.step,
        group_id=t.group_id,
        task_id=t.task_id,
        outcome=t.outcome,
        stop=t.stop,
        solved=t.solved,
        reason=t.reason,
        temperature=t.temperature,
        tokens=t.generated,
        reward=t.reward.total if t.reward else None,
        parts=dict(t.reward.parts) if t.reward else {},
        shaping=dict(shaped.shaping) if shaped else {},
        shaped=shaped.total if shaped else (t.reward.total if t.reward else None),
        advantage=advantage,
        prompt=[_message(message) for message in t.prompt],
        turns=[_turn(number, turn) for number, turn in enumerate(t.turns, 1)],
        checks=[
            models.CheckOf(id=check, passed=passed)
            for check, passed in (verdict.passed.items() if verdict else ())
        ],
        verdict=verdict.reason if verdict else "",
        verifier=dict(verdict.rewards) if verdict else {},
        patch=t.patch,
        seconds=dict(t.seconds),
        notes=[*_vouched(t), *_judged(t, judgements), *_others(t)],
    )


def token_view(
    t: Trajectory,
    decode: TokenPieces | None,
    advantage: float | None = None,
    learner: Mapping[str, Sequence[float]] = MappingProxyType({}),
) -> models.TokenView:
    """All tokens in order; a piece may end in the next segment's first token. ``learner`` has the
    learner's log-probabilities of the generated tokens of some episodes of the step."""
    ids = [i for turn in t.turns for part in (turn.context_ids, turn.token_ids) for i in part]
    pieces = decode(ids) if decode else [f"{i} " for i in ids]
    segments: list[models.TokenSegment] = []
    theirs = iter(learner.get(t.id, ()))
    start = 0
    for number, turn in enumerate(t.turns, 1):
        for own, logprobs in ((turn.context_ids, ()), (turn.token_ids, turn.logprobs)):
            if own:
                segments.append(
                    models.TokenSegment(
                        turn=number,
                        sampled=own is turn.token_ids,
                        version=turn.version,
                        ids=list(own),
                        pieces=pieces[start : start + len(own)],
                        logprobs=[_rounded(value) for value in logprobs],
                        log_ratios=[
                            _rounded(b - a, 9) for a, b in zip(logprobs, theirs, strict=False)
                        ],
                    )
                )
            start += len(own)
    return models.TokenView(
        decoded=decode is not None,
        advantage=advantage,
        segments=segments,
        compared=sorted(learner),
    )


def _rounded(value: float, digits: int = 5) -> float | None:
    return round(value, digits) if math.isfinite(value) else None


def _short_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 16


def _message(message: Message) -> models.MessageOf:
    return models.MessageOf(role=message.role, content=message.content, calls=_calls(message.calls))


def _calls(calls: Sequence[ToolCall]) -> list[models.CallOf]:
    return [
        models.CallOf(
            name=call.name,
            arguments={
                name: value if isinstance(value, str) else json.dumps(value, default=str)
                for name, value in call.arguments.items()
            },
        )
        for call in calls
    ]


def _turn(number: int, turn: Turn) -> models.TurnOf:
    known = [value for value in turn.logprobs if math.isfinite(value)]
    return models.TurnOf(
        number=number,
        content=turn.message.content,
        calls=_calls(turn.message.calls),
        error=turn.error,
        observation=turn.observation,
        elided=turn.elided,
        version=turn.version,
        context_tokens=len(turn.context_ids),
        tokens=len(turn.token_ids),
        mean_logprob=math.fsum(known) / len(known) if known else None,
        min_logprob=min(known, default=None),
    )


def _vouched(t: Trajectory) -> list[models.Note]:
    """Who vouches for the verdict and the parts of the reward, and which rewards abstained."""
    notes = [models.Note(title="Evidence", text="\n".join(lines))] if (lines := vouched(t)) else []
    notes += [models.Note(title=f"{name} abstained", text=why) for name, why in t.abstained.items()]
    return notes


def _judged(t: Trajectory, judgements: Sequence[Judgement]) -> list[models.Note]:
    """What judges said of the episode, in their own words."""
    return [
        models.Note(
            title=f"Judge {own.opinion.judge} on {', '.join(own.about)}",
            text=f"answer: {_answer(own)}\n{own.opinion.text}",
        )
        for own in judgements
        if t.id in own.about
    ]


def _answer(judgement: Judgement) -> str:
    return "none" if judgement.choice is None else judgement.answers[judgement.choice]


def _others(t: Trajectory) -> list[models.Note]:
    """Fields of a trajectory that have no place of their own yet."""
    return [
        models.Note(title=field.name, text=TypeAdapter(object).dump_json(value).decode())
        for field in fields(t)
        if field.name not in SHOWN and (value := getattr(t, field.name))
    ]
