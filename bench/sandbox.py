"""What boxes cost and what they leave: start, warm grading, crowds, floods, killed drivers.

    .venv/bin/python bench/sandbox.py [PART ...] [--grades 300] [--cycles 1000] [--boxes 200]

Parts: start grade crowd cycles flood killed (default: all). Writes bench/results/sandbox.json; with
parts named, only their figures are replaced. Run it as nobody else uses the machine: ratios are
taken within one run, but milliseconds are what they are. Docker has bench/docker_boxes.py.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from report import machine_of, write_report

from palestra.rl.types import CallCheck, Grader, Task
from palestra.sandbox.auto import LOCAL, make
from palestra.sandbox.base import BoxSpec
from palestra.sandbox.bubblewrap import Bubblewrap
from palestra.sandbox.checks import Fresh, make_grader
from palestra.sandbox.keeper import reap
from palestra.sandbox.limits import _parents as cgroup_parents
from palestra.sandbox.local import PYTHON
from palestra.sandbox.timing import timing
from palestra.sandbox.warm import Warm

Figures = dict[str, dict[str, object]]
RESULT = Path(__file__).resolve().parent / "results" / "sandbox.json"
GIB = 1 << 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []])
    parser.add_argument("--grades", type=int, default=300)
    parser.add_argument("--cycles", type=int, default=1000)
    parser.add_argument("--boxes", type=int, default=200)
    parser.add_argument("--driver", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.driver:
        backend, root, token = args.driver.split(":")
        asyncio.run(drive(backend, Path(root), token))
        return
    figures: Figures = {}
    if RESULT.exists() and args.parts:
        figures = json.loads(RESULT.read_text())["figures"]
    for part in args.parts or PARTS:
        print(f"{part} ...", flush=True)
        figures |= PARTS[part](args)
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
    whole: list[float] = []
    bare: list[float] = []
    for _ in range(max(10, args.grades // 6)):
        whole += (await timing(backend, 1, [python, "-S", "-c", "pass"])).cycle
        bare.append(seconds_of([*words, "--", "/bin/true"]) + seconds_of([python, "-S", "-c", ""]))
    ours, theirs = statistics.median(whole), statistics.median(bare)
    return {
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
    p50, ratio = statistics.median(one) * 1e3, rates["warm"] / rates["cold"]
    return {
        "warm grade p50": figure(p50, "ms", "< 10", p50 < 10),
        "warm grade p95": figure(sorted(one)[int(0.95 * len(one))] * 1e3, "ms"),
        "cold grade p50": figure(statistics.median(cold) * 1e3, "ms"),
        "warm grades": figure(rates["warm"], "1/s"),
        "cold grades": figure(rates["cold"], "1/s"),
        "warm grades per cold grade": figure(ratio, "times", ">= 20", ratio >= 20),
    }


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


async def crowd(args: argparse.Namespace) -> Figures:
    """Many boxes at once, each with a running command."""
    with tempfile.TemporaryDirectory() as folder:
        backend = Bubblewrap(root=Path(folder))
        boxes = [await backend.create(BoxSpec()) for _ in range(args.boxes)]
        began = time.perf_counter()
        ended = await asyncio.gather(
            *(box.exec("sleep 2; echo here", timeout=120) for box in boxes)
        )
        took = time.perf_counter() - began
        await asyncio.gather(*(box.close() for box in boxes))
        left = leftovers(Path(folder))[-1]
    good = sum(result.stdout == b"here\n" for result in ended)
    met = good == args.boxes and left == 0
    return {
        "boxes at once that answered": figure(good, "boxes", f"= {args.boxes}", met),
        "boxes at once, all done": figure(took, "s"),
    }


async def cycles(args: argparse.Namespace) -> Figures:
    """Boxes made, used and closed one after the other; what is left is counted."""
    figures: Figures = {}
    for name in LOCAL:
        key = f"bench-{secrets.token_hex(4)}"
        with tempfile.TemporaryDirectory() as folder:
            timed = await timing(make(name, root=Path(folder)), args.cycles, key=key)
            left = leftovers(Path(folder), key)
        for kind, count in zip(KINDS, left, strict=True):
            text = f"{name}: {kind} left of {args.cycles} cycles"
            figures[text] = figure(count, kind, "= 0", count == 0)
        rate = len(timed.cycle) / sum(timed.cycle)
        figures[f"{name}: cycles"] = figure(rate, "1/s")
    return figures


KINDS = ("processes", "mounts", "cgroups", "files")


def leftovers(root: Path, key: str = "") -> tuple[int, int, int, int]:
    """Processes below this one; mounts, control groups and files of boxes."""
    groups = sum(1 for parent in cgroup_parents() for _ in parent.glob(f"palestra-{key}*"))
    mounts = Path("/proc/self/mountinfo").read_text().count(str(root))
    return len(list(below(os.getpid()))), mounts, groups, sum(1 for _ in root.rglob("*"))


def below(pid: int) -> Iterator[int]:
    """Children of a process and theirs."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for child in (thread / "children").read_text().split():
            yield int(child)
            yield from below(int(child))


async def flood(args: argparse.Namespace) -> Figures:
    """What a box that prints a gibibyte costs in memory here."""
    async with Bubblewrap().open() as box:
        await box.exec("true")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        ended = await box.exec(f"head -c {GIB} /dev/zero", timeout=300)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    whole = ended.elided + len(ended.stdout) == GIB
    return {"memory growth, 1 GiB printed": figure(grown, "MiB", "< 64", grown < 64 and whole)}


async def drive(backend: str, root: Path, token: str) -> None:
    """A driver with fifty boxes, each with a command and a daemon; it waits to be killed."""
    provider = make(backend, root=root)
    boxes = [await provider.create(BoxSpec()) for _ in range(50)]
    line = f"setsid sleep 3600.{token} & exec sleep 3600.{token}"
    running = [asyncio.create_task(box.exec(line, timeout=3600)) for box in boxes]
    while with_token(token) < 100:  # noqa: ASYNC110 - no event tells it
        await asyncio.sleep(0.05)
    print("ready", flush=True)
    await asyncio.gather(*running)


def killed(args: argparse.Namespace) -> Figures:
    """A driver with fifty boxes is killed with SIGKILL: what is alive afterwards."""
    figures: Figures = {}
    for name in LOCAL:
        token = str(secrets.randbelow(1 << 30))
        with tempfile.TemporaryDirectory() as folder:
            words = [sys.executable, __file__, "--driver", f"{name}:{folder}:{token}"]
            driver = subprocess.Popen(words, stdout=subprocess.PIPE)
            assert driver.stdout and driver.stdout.readline() == b"ready\n"
            driver.send_signal(signal.SIGKILL)
            driver.wait()
            began = time.perf_counter()
            while (left := with_token(token)) and time.perf_counter() - began < 30:
                time.sleep(0.02)
            took = time.perf_counter() - began
            reap(Path(folder))
            files = leftovers(Path(folder))[-1]
        figures[f"{name}: alive 30 s after kill -9 of the driver of 50 boxes"] = figure(
            left, "processes", "= 0", left == 0
        )
        figures[f"{name}: until all had ended"] = figure(took, "s")
        figures[f"{name}: folders after reaping"] = figure(files, "folders", "= 0", files == 0)
    return figures


def with_token(token: str) -> int:
    """Processes that were started with ``token``, other than drivers."""
    found = 0
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        found += words == f"sleep\x003600.{token}\x00".encode()
    return found


PARTS: dict[str, Callable[[argparse.Namespace], Figures]] = {
    "start": lambda args: asyncio.run(start(args)),
    "grade": lambda args: asyncio.run(grade(args)),
    "crowd": lambda args: asyncio.run(crowd(args)),
    "cycles": lambda args: asyncio.run(cycles(args)),
    "flood": lambda args: asyncio.run(flood(args)),
    "killed": killed,
}


if __name__ == "__main__":
    main()
