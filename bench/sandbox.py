"""What boxes and grades cost on this machine: the start of a box, and warm beside cold grading.

    .venv/bin/python bench/sandbox.py [PART ...] [--grades 300]

Parts: start grade (default: both). Writes bench/results/sandbox.json; with parts named,
only their figures are replaced. Run it as nobody else uses the machine: ratios are taken within one
run, but milliseconds are what they are; the load (its own included) is written beside them. Docker
has bench/docker_boxes.py; what boxes of every backend leave behind is measured by bench/lives.py.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import marshal
import os
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from report import machine_of, write_report

from palestra.rl.types import CallCheck, Grader, Task
from palestra.sandbox.answers import HELLO
from palestra.sandbox.bubblewrap import Bubblewrap
from palestra.sandbox.checks import Fresh, make_grader
from palestra.sandbox.local import PYTHON
from palestra.sandbox.shipping import framed
from palestra.sandbox.timing import Timing, timing
from palestra.sandbox.warm import Warm
from palestra.sandbox.warm_box import Zygote

Figures = dict[str, dict[str, object]]
RESULT = Path(__file__).resolve().parent / "results" / "sandbox.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []])
    parser.add_argument("--grades", type=int, default=300)
    args = parser.parse_args()
    figures: Figures = {}
    if RESULT.exists() and args.parts:
        figures = json.loads(RESULT.read_text())["figures"]
    for part in args.parts or PARTS:
        print(f"{part} ...", flush=True)
        figures |= PARTS[part](args)
        figures[f"load average in {part}"] = figure(os.getloadavg()[0], "processes")
    write_report(RESULT, figures, "bench/sandbox.py", machine_of())


def figure(value: float, unit: str, target: str = "", met: bool | None = None) -> dict[str, object]:
    return {"value": round(value, 3), "unit": unit, "target": target, "met": met}


async def start(args: argparse.Namespace) -> Figures:
    """A box with one trivial command, beside bwrap and an interpreter alone, by turns."""
    words = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session"]
    words += ["--ro-bind", "/usr", "/usr", "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64"]
    words += ["/lib64", "--symlink", "usr/bin", "/bin", "--proc", "/proc", "--dev", "/dev"]
    words += ["--tmpfs", "/tmp", "--clearenv", "--cap-drop", "ALL"]
    backend = Bubblewrap()
    python = str(PYTHON / "bin" / "python3")
    boxes: list[Timing] = []
    bare: list[float] = []
    for _ in range(max(10, args.grades // 6)):
        boxes.append(await timing(backend, 1, [python, "-S", "-c", "pass"]))
        bare.append(seconds_of([*words, "--", "/bin/true"]) + seconds_of([python, "-S", "-c", ""]))
    opened, ran, whole = zip(*((*box.start, *box.exec, *box.cycle) for box in boxes), strict=True)
    ours, theirs = statistics.median(whole), statistics.median(bare)
    return {
        "bubblewrap: start p50": figure(statistics.median(opened) * 1e3, "ms"),
        "bubblewrap: exec p50": figure(statistics.median(ran) * 1e3, "ms"),
        "bubblewrap: start, exec, close p50": figure(ours * 1e3, "ms"),
        "bwrap true and an interpreter p50": figure(theirs * 1e3, "ms"),
        "start ratio": figure(ours / theirs, "times", "<= 1.3", ours / theirs <= 1.3),
    }


def seconds_of(words: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL)
    return time.perf_counter() - began


CHECKS = tuple(
    CallCheck(id=str(n), module="solution", function="f", args=f"({n},)", expected=str(n + 1))
    for n in range(5)
)
TASK = Task(
    id="bench",
    source="",
    kind="",
    prompt="",
    files={},
    reference={},
    artifacts=("solution.py",),
    hidden=CHECKS,
)
ANSWER = {"solution.py": b"def f(x):\n    return x + 1\n"}


async def grade(args: argparse.Namespace) -> Figures:
    """Five calls of one function: by a warm worker, and by a fresh box and interpreter."""
    backend = Bubblewrap()
    warm = Warm(backend)
    one = await latencies(make_grader(warm, concurrency=1), args.grades, 1)
    rates = {"warm": 0.0, "cold": 0.0}
    users = 2 * len(os.sched_getaffinity(0))
    # By turns, so that other users of the machine take from both.
    for _ in range(3):
        for name, runner, count in (
            ("warm", warm, args.grades),
            ("cold", Fresh(backend), args.grades // 5),
        ):
            grader = make_grader(runner, concurrency=users)
            await latencies(grader, 2 * users, users)
            began = time.perf_counter()
            await latencies(grader, count, users)
            rates[name] = max(rates[name], count / (time.perf_counter() - began))
    cold = await latencies(make_grader(Fresh(backend), concurrency=1), args.grades // 10, 1)
    await warm.close()
    empty = await children_per_s(backend, args.grades, users)
    p50, ratio = statistics.median(one) * 1e3, rates["warm"] / rates["cold"]
    return {
        "warm grade p50": figure(p50, "ms", "< 10", p50 < 10),
        "warm grade p95": figure(sorted(one)[int(0.95 * len(one))] * 1e3, "ms"),
        "cold grade p50": figure(statistics.median(cold) * 1e3, "ms"),
        "warm grades": figure(rates["warm"], "1/s"),
        "cold grades": figure(rates["cold"], "1/s"),
        "warm grades per cold grade": figure(ratio, "times", ">= 20", ratio >= 20),
        "warm children that run no candidate": figure(empty, "1/s"),
        "such children per cold grade": figure(empty / rates["cold"], "times"),
    }


async def children_per_s(backend: Bubblewrap, count: int, users: int) -> float:
    """What warm grades would reach if candidates took no time: a child is forked, confined, reads
    an empty plan and ends. The best of three."""
    plan = {"jobs": [], "secret": 0, "memory": 1 << 30, "room": 0, "preload": []}
    request = framed(marshal.dumps(plan, 2))
    zygotes = [await Zygote.start(backend) for _ in range(users)]

    async def use(zygote: Zygote) -> None:
        for _ in range(count // users):
            assert (await zygote.grade(request, 10.0)).report == HELLO

    rates: list[float] = []
    for _ in range(3):
        began = time.perf_counter()
        await asyncio.gather(*map(use, zygotes))
        rates.append(count // users * users / (time.perf_counter() - began))
    for zygote in zygotes:
        await zygote.close()
    return max(rates)


async def latencies(grader: Grader, count: int, users: int) -> list[float]:
    """Seconds of ``count`` grades, ``users`` at a time; the first of each user is not counted."""
    seconds: list[float] = []

    async def use() -> None:
        for number in range(count // users + 1):
            began = time.perf_counter()
            verdict = await grader(TASK, ANSWER)
            assert verdict.solved, verdict.reason
            seconds.extend([time.perf_counter() - began] if number else [])

    await asyncio.gather(*(use() for _ in range(users)))
    return seconds


PARTS: dict[str, Callable[[argparse.Namespace], Figures]] = {
    "start": lambda args: asyncio.run(start(args)),
    "grade": lambda args: asyncio.run(grade(args)),
}


if __name__ == "__main__":
    main()
