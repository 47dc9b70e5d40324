"""The public data sets, whole: what loads, whose references pass, what doing nothing passes.

    PALESTRA_DATA=FOLDER .venv/bin/python bench/formats.py [PART ...]

Parts: a set by its short name, bugs, throughput, memory (default: all). Writes
bench/results/formats.json; with parts named, only their figures are replaced. Everything is graded
in the local jail, without a network. FOLDER is ../shared/data by default; what is absent is said.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import resource
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

from contest_solutions import SOLUTIONS
from processor_time import ProcessorTime
from report import machine_of, write_report

from palestra.envs.check import check_tasks
from palestra.envs.complete import SOLUTION
from palestra.envs.concurrency import bounded
from palestra.envs.files import work_of
from palestra.envs.sources import load
from palestra.envs.taskset import TaskSet
from palestra.rl.types import Grader, Task
from palestra.sandbox.bubblewrap import Bubblewrap
from palestra.sandbox.checks import Fresh, Runner, make_grader, run_checks
from palestra.sandbox.warm import Warm

Figures = dict[str, dict[str, object]]
ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "bench" / "results" / "formats.json"
DATA = Path(os.environ.get("PALESTRA_DATA", ROOT.parent / "shared" / "data"))
USERS = 2 * len(os.sched_getaffinity(0))
PATIENCE_S = 600.0
"""Seconds by the clock for all checks of a task: what else runs on the machine must not decide."""

CHECK_S = 10.0
"""Processor seconds of a check; by the clock it may take ten times that."""

LONGEST = "MBPP/123"
"""It looks for amicable numbers up to 9,999, which takes seconds however it is run."""

BUGS = 2_000
"""Valid tasks that bugs in the Exercism exercises are to give."""

RECORDS = 100_000
BATCH_MIB = 64.0
"""What loading may take beside the records themselves: numbers, ids, the last few tasks."""

SETS = {
    "sanitized-mbpp": "mbpp:mbpp/sanitized-mbpp.json",
    "mbpp": "mbpp:mbpp/mbpp.jsonl",
    "mxeval-mbpp": "mbpp:mbpp/mxeval_mbpp_release_v1.jsonl",
    "exercism": "exercism:exercism-python/practice",
    "quixbugs": "quixbugs:quixbugs",
    "codecontests": "codecontests:codecontests-sample/code_eval_code_contests.jsonl",
    "bigcodebench": "bigcodebench:codecontests-sample/code_eval_bigcodebench.jsonl",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []])
    args = parser.parse_args()
    figures: Figures = {}
    for part in args.parts or PARTS:
        print(f"{part} ...", flush=True)
        figures |= asyncio.run(PARTS[part]())
        figures[f"load average in {part}"] = figure(os.getloadavg()[0], "processes")
    if RESULT.exists() and args.parts:
        figures = json.loads(RESULT.read_text())["figures"] | figures
    write_report(RESULT, figures, "bench/formats.py", machine_of())


def figure(value: float, unit: str, target: str = "", met: bool | None = None) -> dict[str, object]:
    return {"value": round(value, 3), "unit": unit, "target": target, "met": met}


async def whole_set(name: str) -> Figures:
    """References and untouched files of all its tasks, with names where one is not fit."""
    kind, _, path = SETS[name].partition(":")
    if not (DATA / path).exists():
        print(f"  {DATA / path} is absent")
        return {}
    backend = Bubblewrap()
    warm = Warm(backend, spare=USERS)
    tasks = await read(f"{kind}:{DATA / path}", backend)
    if name == "codecontests":
        tasks = solved(tasks)
    grade = make_grader(warm, concurrency=USERS, timeout=PATIENCE_S, check_s=CHECK_S)
    report = (await check_tasks(tasks, grade, repeats=1, concurrency=USERS)).to_json()
    await warm.close()
    counts = {key: report[key] for key in ("tasks", "no_reference", "noop_pass")}
    print(f"  {report['reference_pass']} references pass, {counts}", flush=True)
    return {
        f"{name}: references that pass": {
            **figure(float(str(report["reference_pass"])), "tasks"),
            **counts,
            "unfit": report["invalid"],
            "left_out": report["skipped"],
        }
    }


def solved(tasks: TaskSet) -> TaskSet:
    """The sample comes without solutions: some of its problems with ours."""
    known = {f"CodeContests/{name}": text for name, text in SOLUTIONS.items()}
    given = (
        replace(task, reference={SOLUTION: known[task.id]}) if task.id in known else task
        for task in tasks.tasks
    )
    return replace(tasks, tasks=tuple(given))


async def bugs() -> Figures:
    """Bugs put into all Exercism exercises, and each task that this gives graded as others are."""
    folder = DATA / "exercism-python" / "practice"
    if not folder.exists():
        print(f"  {folder} is absent")
        return {}
    backend = Bubblewrap()
    began = time.perf_counter()
    tasks = await read(f"repair-repo:{folder}", backend)
    seconds = time.perf_counter() - began
    print(f"  {len(tasks.tasks)} tasks in {seconds:.0f} s, graded next", flush=True)
    warm = Warm(backend, spare=USERS)
    grade = make_grader(warm, concurrency=USERS, timeout=PATIENCE_S)
    report = (await check_tasks(tasks, grade, repeats=1, concurrency=USERS)).to_json()
    await warm.close()
    valid = len(tasks.tasks) - len(cast("list[object]", report["invalid"]))
    difficulties = Counter(task.labels["difficulty"] for task in tasks.tasks)
    return {
        "Exercism as repositories with a bug: valid tasks": {
            **figure(valid, "tasks", f">= {BUGS}", valid >= BUGS),
            "made": len(tasks.tasks),
            "unfit": report["invalid"],
            "by difficulty": dict(sorted(difficulties.items())),
            "left_out": report["skipped"],
        },
        "time to make them": figure(seconds, "s"),
    }


async def throughput() -> Figures:
    """All references of sanitized MBPP by warm workers, and by a fresh jail each, in turn; and all
    but the one that computes for longer than all others are graded."""
    backend = Bubblewrap()
    read_in = await read(f"mbpp:{DATA / 'mbpp' / 'sanitized-mbpp.json'}", backend)
    every = tuple(read_in.tasks)
    quick = tuple(task for task in every if task.id != LONGEST)
    warm = Warm(backend, spare=USERS)
    runners = {"warm workers": warm, "a fresh jail each": Fresh(backend)}
    figures: Figures = {}
    with ProcessorTime() as meter:
        for some, tasks in (("427 MBPP references", every), (f"all but {LONGEST}", quick)):
            clock, processor = await compared(tasks, runners, meter)
            for kind, seconds in (("", clock), (", processor time", processor)):
                figures |= {f"{some}, {n}{kind}": figure(t, "s") for n, t in seconds.items()}
                share = seconds["warm workers"] / seconds["a fresh jail each"]
                figures[f"{some}, share of the time{kind}"] = figure(
                    share, "", "<= 1/3", share <= 1 / 3
                )
    await warm.close()
    return figures


async def compared(
    tasks: Sequence[Task], runners: Mapping[str, Runner], meter: ProcessorTime
) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds by the clock and of processors for each runner, with as many grades at a time as suit
    it: a core each, or two. By turns, the better of two, so that other users of the machine do not
    decide."""
    clock, processor = dict.fromkeys(runners, math.inf), dict.fromkeys(runners, math.inf)
    for users in (USERS // 2, USERS) * 2:
        for name, runner in runners.items():
            grade = make_grader(runner, concurrency=users, timeout=PATIENCE_S, check_s=CHECK_S)
            before = meter.enter(name)
            clock[name] = min(clock[name], await graded(tasks, grade, users))
            processor[name] = min(processor[name], meter.enter(name) - before)
    return clock, processor


async def graded(tasks: Sequence[Task], grade: Grader, users: int) -> float:
    async def one(task: Task) -> None:
        verdict = await grade(task, work_of(task, task.reference))
        assert verdict.solved, f"{task.id}: {verdict.reason}"

    began = time.perf_counter()
    await bounded(one, tasks, users)
    return time.perf_counter() - began


async def memory() -> Figures:
    """A file of 100,000 records of 4 KiB is loaded, and every task of it made once."""
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"palestra-bench-{os.getpid()}.jsonl"
    row = {"text": "x" * 4096, "code": "def f():\n    return 1\n", "test_list": ["assert f()"]}
    try:
        with path.open("w") as file:
            for number in range(RECORDS):
                file.write(json.dumps({**row, "task_id": number}) + "\n")
        size = path.stat().st_size / 2**20
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.perf_counter()
        tasks = await read(f"mbpp:{path}", Bubblewrap())
        seconds = time.perf_counter() - began
        assert sum(1 for _ in tasks.tasks) == RECORDS
        peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10
    finally:
        path.unlink(missing_ok=True)
    return {
        "100,000 records on disk": figure(size, "MiB"),
        "growth of the process while they are loaded and used": figure(
            peak, "MiB", f"<= {BATCH_MIB:.0f}", peak <= BATCH_MIB
        ),
        "time to load them": figure(seconds, "s"),
    }


async def read(source: str, backend: Bubblewrap) -> TaskSet:
    return await load(source, run_checks=run_checks, provider=backend, seed=0)


PARTS: dict[str, Callable[[], Coroutine[None, None, Figures]]] = {
    **{name: partial(whole_set, name) for name in SETS},
    "bugs": bugs,
    "throughput": throughput,
    "memory": memory,
}


if __name__ == "__main__":
    main()
