"""Routes about whole runs: the list, metrics, phases, evaluations, health."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Query

from palestra.deploy.dashboard import health, models
from palestra.deploy.dashboard.query import Text
from palestra.deploy.dashboard.runs import SUMMARY
from palestra.deploy.dashboard.sources import Sources
from palestra.deploy.dashboard.steps import Steps, decimated
from palestra.deploy.run_folder import CONFIG
from palestra.rl.errors import UserError
from palestra.rl.journal import EvalRow
from palestra.rl.metrics import eval_scores

COMPARED = 8
"""Runs that can be looked at together."""
LISTED = (
    "reward/mean",
    "reward/std",
    "pass_rate",
    "response_length/mean",
    "actor/entropy",
    "actor/ppo_kl",
    "mismatch/logprob_abs_diff",
    "actor/pg_clipfrac",
    "infra/failure_frac",
    "perf/throughput",
    "timing_s/step",
)
SPARK = 60
SHOWN_TASKS = 500
SHOWN_STEPS = 2_000

ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"description": "A filter or cursor that means nothing"},
    401: {"description": "A token is needed"},
    404: {"description": "No such run or episode"},
    409: {"description": "The run's journal cannot be read; the detail says why"},
    421: {"description": "Asked for under a name that needs a token"},
}


def routes(sources: Sources) -> APIRouter:
    """The routes, reading from these sources."""
    api = APIRouter(prefix="/api", responses=ERRORS, tags=["runs"])

    @api.get("/runs")
    def list_runs() -> models.RunList:
        """Every run of the folder."""
        names = sources.runs.names()
        return models.RunList(
            folder=sources.runs.root.name, runs=[_line(sources, name) for name in names]
        )

    @api.get("/runs/{run}")
    def get_run(run: Text) -> models.RunDetail:
        """One run."""
        versions = sources.runs.json(run, "versions.json")
        counts = (0, 0)
        try:
            with sources.runs.journal(run) as journal:
                counts = journal.counts()
        except UserError:
            pass  # the line says what is wrong
        return models.RunDetail(
            run=_line(sources, run),
            config=sources.runs.text(run, CONFIG),
            versions={str(name): str(value) for name, value in versions.items()},
            summary=sources.runs.text(run, SUMMARY),
            metrics=sorted(sources.steps(run).values),
            trajectories=counts[0],
            evaluated=counts[1],
        )

    @api.get("/metrics")
    def get_metrics(
        runs: Annotated[list[Text], Query(min_length=1, max_length=COMPARED)],
        names: Annotated[list[Text], Query(min_length=1, max_length=200)],
        first: int | None = None,
        last: int | None = None,
        points: Annotated[int, Query(ge=10, le=5_000)] = 1_500,
    ) -> models.SeriesList:
        """Metrics of up to 8 runs between two steps; long ones by least and largest values."""
        found = []
        for run, name in itertools.product(dict.fromkeys(runs), dict.fromkeys(names)):
            sources.runs.path(run)
            steps = sources.steps(run)
            if name in steps.values:
                found.append(_series(run, name, steps, first, last, points))
        return models.SeriesList(series=found)

    @api.get("/runs/{run}/timeline")
    def get_timeline(
        run: Text, first: int | None = None, last: int | None = None
    ) -> models.Timeline:
        """Seconds by phase, of at most 2,000 steps."""
        sources.runs.path(run)
        return models.Timeline(steps=list(_phases(sources.steps(run), first, last)))

    @api.get("/runs/{run}/evals")
    def get_evals(run: Text) -> models.EvalList:
        """Evaluations: pass@1 with its interval, and tasks."""
        with sources.runs.journal(run) as journal:
            rows = journal.evals()
        return models.EvalList(points=list(_points(rows)), tasks=_tasks(rows))

    @api.get("/runs/{run}/health")
    def get_health(run: Text) -> models.Health:
        """Alerts, detectors of reward hacking, and how each environment goes."""
        steps, condition = sources.steps(run), sources.runs.condition(run)
        alerts, detectors = health.alerts(condition, steps), health.detectors(steps)
        environments: list[models.EnvironmentHealth] = []
        progress = models.Progress(indexed=0, recorded=0)
        try:
            with sources.runs.journal(run) as journal, sources.index(run) as index:
                environments = health.environments(index)
                progress = sources.progress(run, journal)
        except UserError:
            pass  # it is among the alerts
        return models.Health(
            alerts=alerts, detectors=detectors, environments=environments, progress=progress
        )

    return api


def _line(sources: Sources, name: str) -> models.RunLine:
    condition, steps = sources.runs.condition(name), sources.steps(name)
    rl = sources.runs.config(name).get("rl")
    planned = rl.get("steps") if isinstance(rl, dict) else None
    rewards = steps.values.get("reward/mean", ())
    wall_s = sum(v for v in steps.values.get("timing_s/step", ()) if math.isfinite(v))
    return models.RunLine(
        name=name,
        state=condition.state,
        problem=condition.problem,
        step=steps.steps[-1] if steps.steps else None,
        steps=planned if isinstance(planned, int) else None,
        latest=dict(health.latest(steps, LISTED)),
        rewards=[rewards[i] for i in decimated(rewards, SPARK)],
        updated=steps.times[-1] if steps.times else None,
        wall_s=wall_s or None,
    )


def _series(
    run: str, name: str, steps: Steps, first: int | None, last: int | None, points: int
) -> models.Series:
    kept = [
        i
        for i, step in enumerate(steps.steps)
        if (first is None or step >= first) and (last is None or step <= last)
    ]
    values = steps.values[name]
    chosen = [kept[i] for i in decimated([values[i] for i in kept], points)]
    return models.Series(
        run=run,
        name=name,
        steps=[steps.steps[i] for i in chosen],
        times=[steps.times[i] for i in chosen],
        values=[values[i] for i in chosen],
    )


def _phases(steps: Steps, first: int | None, last: int | None) -> Iterator[models.Phases]:
    columns = {
        name.removeprefix("timing_s/"): values
        for name, values in steps.values.items()
        if name.startswith("timing_s/")
    }
    total = columns.pop("step", (math.nan,) * len(steps.steps))
    shown = list(zip(itertools.count(), steps.steps, steps.times, strict=False))
    for i, step, end in shown[-SHOWN_STEPS:]:
        if (first is None or step >= first) and (last is None or step <= last):
            yield models.Phases(
                step=step,
                end=end,
                seconds={phase: values[i] for phase, values in columns.items()},
                total=total[i],
            )


def _points(rows: list[EvalRow]) -> Iterator[models.EvalPoint]:
    for step, own in itertools.groupby(rows, key=lambda row: row.step):
        for split, score in eval_scores(own).items():
            yield models.EvalPoint(
                step=step,
                split=split,
                pass_at_1=score.pass_at_1,
                low=score.ci95[0],
                high=score.ci95[1],
                tasks=score.n,
            )


def _tasks(rows: list[EvalRow]) -> list[models.EvalTask]:
    results: dict[tuple[str, str], dict[int, list[bool]]] = {}
    for row in rows:
        results.setdefault((row.split, row.task_id), {}).setdefault(row.step, []).append(row.solved)
    tasks = [
        models.EvalTask(
            split=split,
            task_id=task,
            steps=list(by_step),
            solved=[sum(own) / len(own) for own in by_step.values()],
        )
        for (split, task), by_step in results.items()
    ]
    return sorted(tasks, key=lambda task: -abs(task.solved[-1] - task.solved[0]))[:SHOWN_TASKS]
