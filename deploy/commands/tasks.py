"""``palestra tasks check``, ``tasks show`` and ``score``: tasks and solutions without a model."""

from __future__ import annotations

import asyncio
import json
from argparse import Namespace
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

from palestra.deploy.boxes import Boxes, load_tasks, open_boxes
from palestra.deploy.check_html import page
from palestra.deploy.commands import rescore
from palestra.deploy.config_file import load_recipe
from palestra.deploy.console import Console
from palestra.deploy.html_page import check_place, write
from palestra.deploy.table import aligned
from palestra.deploy.text import clean, one_line
from palestra.envs import harbor_export
from palestra.envs.base import Env
from palestra.envs.check import CheckReport, TaskCheck, check_tasks
from palestra.envs.fresh import Stage
from palestra.envs.red_team import RedTeam
from palestra.envs.registry import make
from palestra.envs.rows import read_rows
from palestra.envs.score_rows import score_rows
from palestra.envs.task_json import task_to_json
from palestra.envs.taskset import TaskSet
from palestra.rewards.score import Scheme
from palestra.rl.errors import UserError
from palestra.rl.types import AnswerCheck, CallCheck, Check, Json, Outcome, ScriptCheck, Task
from palestra.sandbox.redteam.registry import ATTACKS, NO_ATTACK

SHOWN = 20


def check(args: Namespace) -> int:
    """Grade every task's reference and its untouched files; 1 when a task is not sound."""
    place = Path(args.html) if args.html else None
    if place:
        check_place(place)
    report = asyncio.run(_check(args))
    if args.json:
        print(json.dumps(report.to_json()))
    else:
        print("\n".join(report_lines(report)))
    if place:
        write(place, page(report))
    return 0 if report.sound else 1


def show(args: Namespace) -> int:
    """List the tasks of a source, or print one of them."""
    tasks = asyncio.run(_load(args))
    if args.id is None:
        lines = _list(tasks, as_json=args.json)
    else:
        task = _find(tasks, args.id)
        lines = iter([json.dumps(task_to_json(task))]) if args.json else task_lines(task)
    for line in lines:
        print(line)
    return 0


def export(args: Namespace) -> int:
    """Write the tasks of a source as task directories; 1 when there are none."""
    tasks = asyncio.run(_load(args))
    made = harbor_export.export(tasks.tasks, Path(args.out))
    print(f"{len(made)} tasks in {args.out}, {len(tasks.skipped)} skipped")
    return 0 if made else 1


def score(args: Namespace) -> int:
    """Grade given solutions, or score a run's episodes again; 1 when a verdict or a reward could
    not be reached for one of them."""
    if args.solutions is None:
        return rescore.score(args)
    if args.step is not None:
        raise UserError("--step is for the episodes of a run; leave it or --solutions out")
    if not Path(args.solutions).is_file():
        raise UserError(f"--solutions {args.solutions}: there is no such file")
    return asyncio.run(_score(args))


async def _check(args: Namespace) -> CheckReport:
    boxes = _open_boxes(args)
    if args.json:  # the answer alone, for scripts
        tasks = await load_tasks(args.source, boxes, limit=args.limit)
        return await _checked(args, tasks, boxes, lambda _: None)
    with Console() as console:
        if args.source.startswith("repair"):
            console.say("loading tasks; repair tasks are validated the first time")
        tasks = await load_tasks(args.source, boxes, limit=args.limit)
        with console.progress(len(tasks.tasks), "tasks checked") as advance:
            return await _checked(args, tasks, boxes, lambda _: advance())


async def _checked(
    args: Namespace, tasks: TaskSet, boxes: Boxes, on_done: Callable[[TaskCheck], None]
) -> CheckReport:
    env = make(tasks.env, boxes.run_checks)
    return await check_tasks(
        tasks,
        boxes.grader,
        repeats=args.repeats,
        stage=Stage(env=env, provider=boxes.provider),
        red_team=_red_team(args, env, boxes),
        on_done=on_done,
    )


def _open_boxes(args: Namespace) -> Boxes:
    for override in args.set:
        if not override.startswith("sandbox"):
            raise UserError(f"--set {override}: only values of [sandbox] have an effect here")
    sandbox = load_recipe(None, args.set).config.sandbox
    return open_boxes(sandbox, unsafe_local=args.unsafe_local)


def _red_team(args: Namespace, env: Env, boxes: Boxes) -> RedTeam | None:
    if not args.red_team:
        return None
    return RedTeam(attacks=ATTACKS, env=env, provider=boxes.provider)


async def _load(args: Namespace) -> TaskSet:
    boxes = _open_boxes(args)
    return await load_tasks(args.source, boxes, limit=args.limit)


async def _score(args: Namespace) -> int:
    boxes = _open_boxes(args)
    tasks = await load_tasks(args.source, boxes)
    outcomes: Counter[str] = Counter()
    rewards: list[float] = []
    async for result in _results(tasks, boxes, Path(args.solutions)):
        outcomes[str(result["outcome"])] += 1
        if isinstance(result["reward"], float | int):
            rewards.append(float(result["reward"]))
        print(json.dumps(result) if args.json else _score_line(result), flush=True)
    if not args.json:
        counts = ", ".join(f"{count} {name}" for name, count in sorted(outcomes.items()))
        mean = f"; mean reward {sum(rewards) / len(rewards):.3f}" if rewards else ""
        print(f"{outcomes.total()} solutions: {counts or 'none'}{mean}")
    return 1 if outcomes[Outcome.INFRA_FAILURE.value] else 0


def _results(tasks: TaskSet, boxes: Boxes, path: Path) -> AsyncIterator[dict[str, Json]]:
    env = make(tasks.env, boxes.run_checks)
    return score_rows(tasks, read_rows(path), boxes.grader, Scheme(env.rewards))


def _score_line(result: dict[str, Json]) -> str:
    reward = result["reward"]
    shown = f"{reward:.3f}" if isinstance(reward, float | int) else "-"
    name, reason = one_line(str(result["task_id"])), one_line(str(result["reason"]))
    return f"{shown:>6}  {result['outcome']!s:13}  {name}  {reason}".rstrip()


def report_lines(report: CheckReport) -> Iterator[str]:
    """A report for people: what is wrong with which task, and the counts."""
    counts = report.to_json()
    for task in report.tasks:
        if task.problem:
            yield f"{one_line(task.id)}: {one_line(task.problem)}"
    yield from _red_team_lines(report.tasks)
    for item in report.skipped[:SHOWN]:
        yield f"skipped {one_line(item.id)}: {one_line(item.reason)}"
    if len(report.skipped) > SHOWN:
        yield f"... and {len(report.skipped) - SHOWN} more skipped"
    if not report.tasks:
        yield f"{one_line(report.source)}: no tasks"
        return
    slowest = report.slowest[0]
    yield f"slowest reference: {one_line(slowest.id)}, {slowest.seconds:.2f} s"
    unproven = f", {counts['no_reference']} have none" if counts["no_reference"] else ""
    yield (
        f"{one_line(report.source)}: {counts['tasks']} tasks; {counts['reference_pass']} references"
        f" pass{unproven}, {counts['noop_pass']} pass untouched, {counts['flaky']} flaky,"
        f" {len(report.skipped)} skipped; {report.wall_s:.1f} s"
    )


def _red_team_lines(tasks: Sequence[TaskCheck]) -> Iterator[str]:
    """A line for each attack on each task that passed, and a table of all that were tried."""
    tried: Counter[str] = Counter(name for task in tasks for name in task.attacks)
    if not tried:
        return
    passed: Counter[str] = Counter()
    for task in tasks:
        for name, gain in task.attacks.items():
            if gain:
                passed[name] += 1
                yield f"{one_line(task.id)}: {name} {ATTACKS[name].tries}: {one_line(gain)}"
    rows = [
        (name, str(ATTACKS[name].row), str(count), str(passed[name]), ATTACKS[name].tries)
        for name, count in tried.items()
    ]
    yield from aligned([("attack", "row", "tried", "passed", "what it tries"), *rows])
    yield from (f"row {row}: not tried: {why}" for row, why in NO_ATTACK.items())


def _list(tasks: TaskSet, *, as_json: bool) -> Iterator[str]:
    rows = [
        {
            "id": task.id,
            "kind": task.kind,
            "split": task.labels.get("split", ""),
            "visible": len(task.visible),
            "hidden": len(task.hidden),
        }
        for task in tasks.tasks
    ]
    if as_json:
        yield json.dumps({"source": tasks.source, "env": tasks.env, "tasks": rows})
        return
    names = ("id", "kind", "split", "visible", "hidden")
    yield from aligned([names, *(tuple(str(row[name]) for name in names) for row in rows)])
    yield f"{len(rows)} tasks for {one_line(tasks.env)}, {len(tasks.skipped)} skipped"


def _find(tasks: TaskSet, prefix: str) -> Task:
    found = [task for task in tasks.tasks if task.id.startswith(prefix)]
    exact = [task for task in found if task.id == prefix]
    if len(exact or found) == 1:
        return (exact or found)[0]
    some = ", ".join(one_line(task.id) for task in (found or tasks.tasks)[:5])
    what = "more than one task" if found else "no task"
    raise UserError(f"{tasks.source}: {what} has an id like {prefix}, e.g. {some or 'none at all'}")


def task_lines(task: Task) -> Iterator[str]:
    """One task for people, with what the agent does not see."""
    yield f"{one_line(task.id)}  ({one_line(task.kind)}, {one_line(task.source)})"
    yield from ("--- prompt", clean(task.prompt))
    for what, files in (("file", task.files), ("reference", task.reference)):
        for path, text in files.items():
            yield from (f"--- {what} {one_line(path)}", clean(text))
    for what, checks in (("visible", task.visible), ("hidden", task.hidden)):
        yield f"--- {len(checks)} {what} checks"
        for item in checks:
            yield f"  {one_line(_check_text(item))}"


def _check_text(check: Check) -> str:
    if isinstance(check, CallCheck):
        return f"{check.id}: {check.function}{check.args} == {check.expected}"
    if isinstance(check, AnswerCheck):
        return f"{check.id}: {check.verifier} {check.expected}"
    return f"{check.id}: {check.code}" if isinstance(check, ScriptCheck) else check.id
