"""What a pool is worth: from asking for a box to the first result of a command, with and without.

    .venv/bin/python bench/pool.py [--backends bubblewrap docker kubernetes] [--boxes 20]

Writes bench/results/pool.json. Boxes are asked for one after the other, by turns with the pool and
without, so that others who use the machine take from both; before each, the pool has had the time
to make a spare box, as it has while a policy thinks. Then used bubblewrap boxes made as new, beside
removing one and making another. Docker and Kubernetes need their DOCKER_HOST and KUBECONFIG; with
backends named, only their figures are replaced.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from pathlib import Path

from report import machine_of, write_report

from palestra.sandbox.auto import BACKENDS, LOCAL, make
from palestra.sandbox.base import Backend, BoxSpec
from palestra.sandbox.bubblewrap import Bubblewrap
from palestra.sandbox.config import PoolConfig
from palestra.sandbox.pool import Pool

Figures = dict[str, dict[str, object]]
RESULT = Path(__file__).resolve().parent / "results" / "pool.json"
# A node of two processors has room for them.
OPTIONS: dict[str, dict[str, object]] = {"kubernetes": {"reserve": 0.02}}
DEFAULT = ("bubblewrap", "docker", "kubernetes")
MESS = "mkdir a; echo hi > a/b; setsid sleep 300 >/dev/null 2>&1 &"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=DEFAULT)
    parser.add_argument("--image", default="agentbase:bookworm")
    parser.add_argument("--boxes", type=int, default=20)
    args = parser.parse_args()
    figures: Figures = json.loads(RESULT.read_text())["figures"] if RESULT.exists() else {}
    for name in args.backends:
        image = {} if name in LOCAL else {"image": args.image}
        backend = make(name, **image, **OPTIONS.get(name, {}))
        figures |= asyncio.run(first_results(backend, args.boxes))
        if isinstance(backend, Bubblewrap) and not backend.cannot_reset():
            figures |= asyncio.run(again(backend, args.boxes))
    write_report(RESULT, figures, "bench/pool.py", machine_of())


async def first_results(backend: Backend, count: int) -> Figures:
    """Seconds from ``open`` to the first result."""
    with_pool: list[float] = []
    without: list[float] = []
    async with Pool(backend, PoolConfig(spare=2), places=8) as pool:
        for _ in range(count):
            await quiet(pool)
            with_pool.append(await first_result(pool))
            await quiet(pool)
            without.append(await first_result(backend))
    return compared(f"{backend.name}: first result", "from the pool", with_pool, "fresh", without)


async def first_result(backend: Backend) -> float:
    began = time.perf_counter()
    async with backend.open() as box:
        ended = await box.exec(["true"], timeout=60)
        took = time.perf_counter() - began
    assert ended.exit_code == 0
    return took


async def quiet(pool: Pool) -> None:
    """Wait until the spare boxes are there and nothing goes on."""
    while True:
        now = pool.metrics()
        busy = now["sandbox/creating"] + now["sandbox/closing"]
        if now["sandbox/spare"] == 2 and not busy:
            return
        await asyncio.sleep(0.01)


async def again(backend: Bubblewrap, count: int) -> Figures:
    """A used box made as new and compared, beside one removed and another made."""
    renewed: list[float] = []
    replaced: list[float] = []
    box = await backend.create(BoxSpec())
    for _ in range(count):
        await box.exec(MESS)
        began = time.perf_counter()
        await backend.reset(box)
        await backend.fingerprint(box)
        renewed.append(time.perf_counter() - began)
        await box.exec(MESS)
        began = time.perf_counter()
        await box.close()
        box = await backend.create(BoxSpec())
        replaced.append(time.perf_counter() - began)
    await box.close()
    return compared("bubblewrap: next box", "made as new", renewed, "replaced", replaced)


def compared(what: str, first: str, ours: list[float], second: str, theirs: list[float]) -> Figures:
    """Medians and 95th percentiles in milliseconds, and the ratio of the medians."""
    figures: Figures = {}
    for name, seconds in ((first, ours), (second, theirs)):
        last = statistics.quantiles(seconds, n=20)[-1]
        for part, value in (("p50", statistics.median(seconds)), ("p95", last)):
            figures[f"{what}, {name} {part}"] = figure(value * 1000, "ms")
    ratio = statistics.median(theirs) / statistics.median(ours)
    return {**figures, f"{what}, {second} / {first}": figure(ratio, "times")}


def figure(value: float, unit: str) -> dict[str, object]:
    return {"value": round(value, 2), "unit": unit, "target": ""}


if __name__ == "__main__":
    main()
