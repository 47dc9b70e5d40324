"""Lives of boxes on every backend: what crowds, cycles, floods and killed drivers leave and cost.

    .venv/bin/python bench/lives.py [PART ...] [--backend B ...] [--image IMAGE]

Parts: cycles crowd flood killed (default: all). Backends: those of this machine, Docker with
DOCKER_HOST and Kubernetes with KUBECONFIG, whose daemon and node must run on this machine, or what
they leave cannot be counted. Writes bench/results/lives.json; with parts or backends named, only
their figures are replaced.

cycles  1,000 boxes made, used and closed, four at a time; what is left of them is counted
crowd   many boxes at once, each with a running command
flood   how much the driver's memory grows while a box prints 1 GiB
killed  a driver with fifty boxes gets SIGKILL: what is alive 30 s later, what is left for reaping,
        and what after that
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from footprint import Footprint
from report import machine_of, write_report

from palestra.sandbox.auto import LOCAL, make
from palestra.sandbox.base import Backend, BoxSpec, reap
from palestra.sandbox.limits import Limits

Figures = dict[str, dict[str, object]]
Part = Callable[[str, argparse.Namespace], Figures]
RESULT = Path(__file__).resolve().parent / "results" / "lives.json"
NEEDS = {"docker": "DOCKER_HOST", "kubernetes": "KUBECONFIG"}
CROWD = {"docker": 100, "kubernetes": 50}
"""Boxes at once where they are containers; as many as --boxes elsewhere."""
GIB = 1 << 30
USERS = 4
GONE_S = 30.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []])
    parser.add_argument("--backend", action="append", choices=[*LOCAL, *NEEDS])
    parser.add_argument("--image", default="agentbase:bookworm")
    parser.add_argument("--cycles", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=600.0, help="at most, for cycles")
    parser.add_argument("--boxes", type=int, default=200)
    parser.add_argument("--driver", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.driver:
        asyncio.run(drive(*json.loads(args.driver)))
        return
    known = [name for name in (*LOCAL, *NEEDS) if name in LOCAL or os.environ.get(NEEDS[name])]
    figures: Figures = {}
    if RESULT.exists() and (args.parts or args.backend):
        figures = json.loads(RESULT.read_text())["figures"]
    for part in args.parts or PARTS:
        for name in args.backend or known:
            print(f"{part} {name} ...", flush=True)
            new = PARTS[part](name, args)
            how = f"bench/lives.py {part}, load {os.getloadavg()[0]:.1f}"
            figures |= {text: one | {"how": how} for text, one in new.items()}
            write_report(RESULT, figures, how, machine_of())


def figure(value: float, unit: str, target: str = "", met: bool | None = None) -> dict[str, object]:
    return {"value": round(value, 3), "unit": unit, "target": target, "met": met}


def none(count: int, unit: str) -> dict[str, object]:
    return figure(count, unit, "= 0", count == 0)


def backend_of(name: str, root: str, image: str) -> Backend:
    if name in LOCAL:
        return make(name, root=Path(root))
    # Fifty boxes fit on a node of two processors.
    return make(name, image=image, **({"reserve": 0.02} if name == "kubernetes" else {}))


def spec(name: str, labels: dict[str, str]) -> BoxSpec:
    """A box of its own label; containers are small, because nodes set all of their memory aside."""
    limits = Limits() if name in LOCAL else Limits(memory=256 << 20)
    return BoxSpec(labels=labels, limits=limits)


async def cycles(name: str, args: argparse.Namespace) -> Figures:
    """Boxes made, used and closed, a few at a time; what is left of them is counted."""
    labels, left = {"bench": secrets.token_hex(8)}, Footprint()
    numbers, until = iter(range(args.cycles)), time.monotonic() + args.seconds
    done: list[float] = []

    async def use(backend: Backend, turns: Iterator[int]) -> None:
        for _ in turns:
            if time.monotonic() > until:
                return
            began = time.perf_counter()
            async with backend.open(spec(name, labels)) as box:
                took = time.perf_counter() - began
                await asyncio.to_thread(left.note, backend, box.name)
                began = time.perf_counter()
                assert (await box.exec(["true"], timeout=60)).exit_code == 0
            done.append(took + time.perf_counter() - began)

    with tempfile.TemporaryDirectory() as root:
        backend = await asyncio.to_thread(backend_of, name, root, args.image)
        await asyncio.gather(*(use(backend, iter([0])) for _ in range(USERS)))
        done.clear()
        before = held()
        await asyncio.gather(*(use(backend, numbers) for _ in range(USERS)))
        found, took = await gone(backend, labels, left)
        found["descriptors and children"] = max(0, held() - before)
    figures = {
        f"{name}: {kind} left of {len(done)} cycles": none(count, kind)
        for kind, count in found.items()
    }
    figures[f"{name}: seconds of a cycle, {USERS} at once"] = figure(sum(done) / len(done), "s")
    figures[f"{name}: until nothing of the last cycle was left"] = figure(took, "s")
    return figures


async def crowd(name: str, args: argparse.Namespace) -> Figures:
    """Many boxes at once, each with a running command."""
    count = min(args.boxes, CROWD.get(name, args.boxes))
    labels, left = {"bench": secrets.token_hex(8)}, Footprint()
    with tempfile.TemporaryDirectory() as root:
        backend = await asyncio.to_thread(backend_of, name, root, args.image)
        began = time.perf_counter()
        boxes = await asyncio.gather(*(backend.create(spec(name, labels)) for _ in range(count)))
        made = time.perf_counter() - began
        for box in boxes:
            await asyncio.to_thread(left.note, backend, box.name)
        began = time.perf_counter()
        runs = (box.exec("sleep 2; echo here", timeout=120) for box in boxes)
        ended = await asyncio.gather(*runs)
        took = time.perf_counter() - began
        await asyncio.gather(*(box.close() for box in boxes))
        found, _ = await gone(backend, labels, left)
    good = sum(result.stdout == b"here\n" for result in ended)
    clean = not any(found.values())
    return {
        f"{name}: boxes at once that answered": figure(
            good, "boxes", f"= {count}", good == count and clean
        ),
        f"{name}: until all {count} boxes were there": figure(made, "s"),
        f"{name}: until each had run a command of 2 s": figure(took, "s"),
    }


async def flood(name: str, args: argparse.Namespace) -> Figures:
    """What a box that prints a gibibyte costs in memory of the driver."""
    with tempfile.TemporaryDirectory() as root:
        backend = await asyncio.to_thread(backend_of, name, root, args.image)
        async with backend.open(spec(name, {})) as box:
            await box.exec("head -c 1000000 /dev/zero")
            before, began = reset_peak(), time.perf_counter()
            ended = await box.exec(f"head -c {GIB} /dev/zero", timeout=300)
            grown, took = (memory("VmHWM") - before) / 1024, time.perf_counter() - began
    whole = ended.elided + len(ended.stdout) == GIB
    return {
        f"{name}: memory growth of the driver, 1 GiB printed": figure(
            grown, "MiB", "< 64", grown < 64 and whole
        ),
        f"{name}: until 1 GiB was printed": figure(took, "s"),
    }


async def drive(name: str, root: str, image: str, labels: dict[str, str], count: int) -> None:
    """A driver with boxes, each with a command and a daemon, that waits to be killed."""
    backend, left = await asyncio.to_thread(backend_of, name, root, image), Footprint()
    boxes = await asyncio.gather(*(backend.create(spec(name, labels)) for _ in range(count)))
    line = "setsid sleep 3600 & touch started; exec sleep 3600"
    running = [asyncio.create_task(box.exec(line, timeout=3600)) for box in boxes]
    for box in boxes:
        while "started" not in await box.get():  # noqa: ASYNC110 - no event tells it
            await asyncio.sleep(0.05)
        await asyncio.to_thread(left.note, backend, box.name)
    print(left.dump(), flush=True)
    await asyncio.gather(*running)


def killed(name: str, args: argparse.Namespace) -> Figures:
    """A driver with fifty boxes is killed with SIGKILL: what is left."""
    labels, count = {"bench": secrets.token_hex(8)}, min(50, args.boxes)
    with tempfile.TemporaryDirectory() as root:
        given = json.dumps([name, root, args.image, labels, count])
        with subprocess.Popen(
            [sys.executable, __file__, "--driver", given], stdout=subprocess.PIPE
        ) as driver:
            assert driver.stdout
            left = Footprint.load(driver.stdout.readline())
            alive = left.count()
            driver.send_signal(signal.SIGKILL)
        assert alive["processes"] >= 3 * count, "two processes of each box, and what watches them"
        began = time.perf_counter()
        while (now := left.count())["processes"] and time.perf_counter() - began < GONE_S:
            time.sleep(0.02)
        took = time.perf_counter() - began
        while any(now.values()) and time.perf_counter() - began < GONE_S:
            time.sleep(0.2)
            now = left.count()
        backend = backend_of(name, root, args.image)
        now["boxes"], reaped = asyncio.run(removed(backend, labels, left))
    text = f"{name}: killed driver of {count} boxes"
    figures = {
        f"{text}: processes before": figure(alive["processes"], "processes"),
        f"{text}: alive 30 s later": none(now["processes"], "processes"),
        f"{text}: until none was alive": figure(took, "s"),
    }
    for kind in reaped:
        figures[f"{text}: {kind} to reap 30 s later"] = figure(now[kind], kind)
        figures[f"{text}: {kind} after reaping"] = none(reaped[kind], kind)
    return figures


async def removed(
    backend: Backend, labels: dict[str, str], left: Footprint
) -> tuple[int, dict[str, int]]:
    """How many boxes were left for reaping, and what is left after it."""
    boxes = await backend.list(labels)
    await reap(backend, labels)
    return len(boxes), (await gone(backend, labels, left))[0]


async def gone(
    backend: Backend, labels: dict[str, str], left: Footprint
) -> tuple[dict[str, int], float]:
    """What is left, ``boxes`` as the backend lists them included, and after how many seconds that
    was none; waits for it, because daemons and nodes clean up behind our back."""
    began = time.perf_counter()
    while True:
        found = left.count() | {"boxes": len(await backend.list(labels))}
        took = time.perf_counter() - began
        if not any(found.values()) or took > 4 * GONE_S:
            return found, took
        await asyncio.sleep(0.1)


def held() -> int:
    """Descriptors and children of this process."""
    gc.collect()
    children = Path("/proc/self/task").glob("*/children")
    count = sum(len(path.read_text().split()) for path in children)
    return count + len(list(Path("/proc/self/fd").iterdir()))


def reset_peak() -> int:
    """KiB of this process now, from which ``VmHWM`` counts again."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


def memory(name: str) -> int:
    """KiB of this process: ``VmRSS`` now, ``VmHWM`` at most since ``clear_refs``."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


PARTS: dict[str, Part] = {
    "cycles": lambda *given: asyncio.run(cycles(*given)),
    "crowd": lambda *given: asyncio.run(crowd(*given)),
    "flood": lambda *given: asyncio.run(flood(*given)),
    "killed": killed,
}


if __name__ == "__main__":
    main()
