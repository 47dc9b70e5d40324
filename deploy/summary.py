"""``summary.json``: how a run went, in the shape that scripts rely on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Literal, TypeAlias

from palestra.rl.journal import Journal
from palestra.rl.metrics import EvalScore, eval_scores
from palestra.rl.types import Json

Status: TypeAlias = Literal["done", "stopped", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A run so far. ``rewards`` holds the mean reward of every step, in order; ``reason`` is one
    line on why it has failed.

    Example: ``Summary(status="done", steps=40, before=scores, after=scores, rewards=(0.2, 0.3),
    wall_s=610.0, timing_s={"generate": 400.0}, tokens=150_000, mismatch_max=3e-7,
    checkpoint="runs/tiny/checkpoints/step-40")``
    """

    status: Status
    steps: int
    reason: str = ""
    before: Mapping[str, EvalScore] = field(default_factory=dict)
    after: Mapping[str, EvalScore] = field(default_factory=dict)
    rewards: Sequence[float] = ()
    wall_s: float = 0.0
    timing_s: Mapping[str, float] = field(default_factory=dict)
    tokens: int = 0
    mismatch_max: float = 0.0
    checkpoint: str = ""
    more: Mapping[str, Json] = field(default_factory=dict)

    def to_json(self) -> dict[str, Json]:
        """The object of ``summary.json``; numbers that are not finite are null."""
        return {
            "status": self.status,
            "reason": self.reason,
            "steps": self.steps,
            "eval": {"before": _scores(self.before), "after": _scores(self.after)},
            "reward": {"first5": _mean(self.rewards[:5]), "last5": _mean(self.rewards[-5:])},
            "wall_s": _finite(self.wall_s),
            "timing_s": {name: _finite(value) for name, value in self.timing_s.items()},
            "tokens": self.tokens,
            "mismatch_max": _finite(self.mismatch_max),
            "checkpoint": self.checkpoint,
            **self.more,
        }


def summarize(
    journal: Journal, *, status: Status, reason: str = "", wall_s: float, checkpoint: str
) -> Summary:
    """What the journal says: the first and last evaluation, and the metrics of every step.

    Sums ``timing_s/*`` and ``response_length/sum``; takes the worst ``mismatch/logprob_abs_diff``.
    """
    metrics = [values for _, values in journal.steps()]
    rows = journal.evals()
    evaluated = sorted({row.step for row in rows})
    before = [row for row in rows if row.step == evaluated[0]]
    after = [row for row in rows if row.step == evaluated[-1]] if len(evaluated) > 1 else []
    timing: dict[str, float] = {}
    for values in metrics:
        for name, value in values.items():
            if name.startswith("timing_s/"):
                phase = name.removeprefix("timing_s/")
                timing[phase] = timing.get(phase, 0.0) + value
    mismatch = [v["mismatch/logprob_abs_diff"] for v in metrics if "mismatch/logprob_abs_diff" in v]
    return Summary(
        status=status,
        reason=reason,
        steps=len(metrics),
        before=eval_scores(before),
        after=eval_scores(after),
        rewards=[values["reward/mean"] for values in metrics if "reward/mean" in values],
        wall_s=wall_s,
        timing_s=timing,
        tokens=int(sum(values.get("response_length/sum", 0.0) for values in metrics)),
        mismatch_max=max(mismatch, default=0.0),
        checkpoint=checkpoint,
    )


def _scores(scores: Mapping[str, EvalScore]) -> dict[str, Json]:
    return {
        split: {"pass@1": score.pass_at_1, "n": score.n, "ci95": list(score.ci95)}
        for split, score in scores.items()
    }


def _mean(values: Sequence[float]) -> float | None:
    return _finite(fmean(values)) if values else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
