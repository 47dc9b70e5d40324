"""What to look at: rules over metrics, and how the episodes of each environment went.

The thresholds are our defaults.
"""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from palestra.deploy.dashboard import models
from palestra.deploy.dashboard.runs import Condition, State
from palestra.deploy.dashboard.steps import Steps
from palestra.rl.types import Outcome, Stop

WINDOW = 10
"""Steps of training that the health of environments is about."""
STALLED = 5.0
"""A step that takes so many times the median is a stall."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A metric above ``most`` is worth an alert.

    Example: ``Bound(metric="pass_rate", most=0.9, level="look", title="easy", why="...")``
    """

    metric: str
    most: float
    level: str
    title: str
    why: str


BOUNDS = (
    Bound(
        metric="reward/zero_std_frac",
        most=0.8,
        level="look",
        title="Most groups teach nothing",
        why="All rewards of a group are equal: its task is too easy or too hard.",
    ),
    Bound(
        metric="response_length/clip_ratio",
        most=0.5,
        level="look",
        title="Most episodes run into a token limit",
        why="They are cut off before they can end by themselves.",
    ),
    Bound(
        metric="infra/failure_frac",
        most=0.05,
        level="act",
        title="Episodes are lost to the machinery",
        why="Boxes, the engine or the grader fail; above rl.max_infra_failures the run stops.",
    ),
    Bound(
        metric="task/failure_frac",
        most=0.05,
        level="look",
        title="Tasks cannot be set up or graded",
        why="Their own content is at fault; palestra tasks check says how.",
    ),
    Bound(
        metric="mismatch/kl",
        most=0.01,
        level="act",
        title="Engine and learner disagree",
        why="Tokens were sampled from another distribution than the one that is learned.",
    ),
    Bound(
        metric="actor/pg_clipfrac",
        most=0.3,
        level="look",
        title="Many tokens are clipped",
        why="The policy moves further in a step than the objective lets it.",
    ),
    Bound(
        metric="tools/failure_rate",
        most=0.3,
        level="look",
        title="Many replies hold no valid tool call",
        why="The policy does not write calls as its dialect asks.",
    ),
)


def alerts(condition: Condition, steps: Steps) -> list[models.Alert]:
    """Everything that is worth a look now, the urgent first."""
    found = [*_of_run(condition, steps), *_not_numbers(steps), *_bounds(steps), *_alarms(steps)]
    return sorted(found, key=lambda alert: alert.level != "act")


def _of_run(condition: Condition, steps: Steps) -> Iterator[models.Alert]:
    if condition.state is State.FAILED:
        yield _alert(
            "act",
            "The run has failed",
            condition.problem or "Its console.log says how far it came.",
            "",
            steps,
        )
    if condition.state is State.UNREADABLE:
        yield _alert("act", "The journal cannot be read", condition.problem, "", steps)
    durations = [v for v in steps.values.get("timing_s/step", ()) if math.isfinite(v)]
    if condition.state is State.RUNNING and len(durations) >= 3 and steps.times:
        waited, usual = time.time() - steps.times[-1], median(durations)
        if waited > max(60.0, STALLED * usual):
            why = f"Nothing for {waited:.0f} s; a step usually takes {usual:.0f} s."
            yield _alert("act", "No step has been finished for long", why, "timing_s/step", steps)


def _not_numbers(steps: Steps) -> Iterator[models.Alert]:
    for name in steps.broken:
        why = f"{name} of step {steps.steps[-1]}."
        yield _alert("act", "A metric is infinite or not a number", why, name, steps)


def _bounds(steps: Steps) -> Iterator[models.Alert]:
    for bound in BOUNDS:
        values = steps.values.get(bound.metric, ())
        if values and values[-1] > bound.most:
            why = f"{bound.why} {bound.metric} is {values[-1]:.3g}, above {bound.most:g}."
            yield _alert(bound.level, bound.title, why, bound.metric, steps)
    entropy = [v for v in steps.values.get("actor/entropy", ()) if math.isfinite(v)]
    if len(entropy) >= WINDOW and entropy[-1] < 0.1 * max(entropy[:WINDOW]):
        why = f"It is {entropy[-1]:.3g}, less than a tenth of what it was at first."
        yield _alert("look", "The entropy has collapsed", why, "actor/entropy", steps)


def _alarms(steps: Steps) -> Iterator[models.Alert]:
    for name, values in steps.values.items():
        if is_alarm(name) and values and values[-1] > 0:
            why = f"{name} is {values[-1]:.3g} at step {steps.steps[-1]}."
            yield _alert("act", "A detector has raised an alarm", why, name, steps)


def is_alarm(name: str) -> bool:
    """Metrics that are above 0 where something is wrong: a part of the name says ``alarm``."""
    return "alarm" in name.split("/")


def detectors(steps: Steps) -> list[models.Detector]:
    """Metrics of detectors of reward hacking."""
    return [
        models.Detector(
            name=name,
            last=steps.last(name),
            largest=max((v for v in values if not math.isnan(v)), default=None),
            at=_where_largest(steps, values),
        )
        for name, values in steps.values.items()
        if name.startswith("hacking/") or is_alarm(name)
    ]


def _where_largest(steps: Steps, values: tuple[float, ...]) -> int | None:
    known = [(v, -step) for v, step in zip(values, steps.steps, strict=True) if not math.isnan(v)]
    return -max(known)[1] if known else None


def _alert(level: str, title: str, why: str, metric: str, steps: Steps) -> models.Alert:
    step = steps.steps[-1] if steps.steps else None
    return models.Alert(level=level, title=title, why=why, metric=metric, step=step)


GROUPS = """
SELECT environment, split, COUNT(*), SUM(solved), MAX(solved), MIN(solved),
    MIN(reward) = MAX(reward), SUM(stop IN (?, ?)), SUM(errors > 0), SUM(tokens),
    SUM(outcome IN (?, ?))
FROM episodes WHERE split = ? AND step BETWEEN ? AND ?
GROUP BY environment, split, group_id, step
"""


def environments(connection: sqlite3.Connection) -> list[models.EnvironmentHealth]:
    """The last ``WINDOW`` steps of training, and the last evaluation of each split."""
    found = []
    ends = connection.execute("SELECT split, MAX(step) FROM episodes GROUP BY split").fetchall()
    for split, last in ends:
        first = last if split else last - WINDOW + 1
        values = (
            *(Stop.OVER_BUDGET.value, Stop.CONTEXT_FULL.value),
            *(Outcome.INFRA_FAILURE.value, Outcome.TASK_FAILURE.value),
            *(split, first, last),
        )
        by_name: dict[str, list[tuple[Any, ...]]] = {}
        for row in connection.execute(GROUPS, values):
            by_name.setdefault(row[0], []).append(row)
        found += [_environment(name, split, rows) for name, rows in sorted(by_name.items())]
    return found


def _environment(name: str, split: str, rows: list[tuple[Any, ...]]) -> models.EnvironmentHealth:
    episodes = sum(row[2] for row in rows)
    return models.EnvironmentHealth(
        environment=name,
        split=split or "train",
        episodes=episodes,
        groups=len(rows),
        pass_at_1=fmean(row[3] / row[2] for row in rows),
        pass_at_k=fmean(row[4] for row in rows),
        k=episodes / len(rows),
        mixed=fmean(row[4] != row[5] for row in rows),
        uniform=fmean(row[6] for row in rows),
        clipped=sum(row[7] for row in rows) / episodes,
        errors=sum(row[8] for row in rows) / episodes,
        tokens=sum(row[9] for row in rows) / episodes,
        lost=sum(row[10] for row in rows) / episodes,
    )


def latest(steps: Steps, names: tuple[str, ...]) -> Mapping[str, float | None]:
    """The last values of some metrics, those that the run has."""
    return {name: steps.last(name) for name in names if name in steps.values}
