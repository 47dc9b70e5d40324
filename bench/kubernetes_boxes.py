"""What a Kubernetes box costs over each way to it.

    KUBECONFIG=... .venv/bin/python bench/kubernetes_boxes.py [--image IMAGE] [--boxes 10]

Writes bench/results/kubernetes_boxes.json: median milliseconds to make a box that takes commands,
to run `true`, to write and to read 1 MB, boxes one after the other; and to run `true` in each of
sixteen boxes at once, from the first to the last. `direct` is HTTP to the Pod, `proxy` HTTP through
the API server, `websocket` a stream of the API server.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
from pathlib import Path

from docker_boxes import Clock
from report import machine_of, write_report

from palestra.sandbox.base import BoxSpec
from palestra.sandbox.kubernetes import Kubernetes
from palestra.sandbox.kubernetes_ways import MEANING
from palestra.sandbox.limits import Limits

RESULT = Path(__file__).resolve().parent / "results" / "kubernetes_boxes.json"
SPEC = BoxSpec(limits=Limits(memory=256 << 20))
COMMANDS, CROWD, ROUNDS = 20, 16, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", default="agentbase:bookworm")
    parser.add_argument("--boxes", type=int, default=10)
    args = parser.parse_args()
    clock = Clock()
    backends = [Kubernetes(image=args.image, reserve=0.02, transport=way) for way in MEANING]
    # In turns: what else the machine does meets all of them.
    for _ in range(args.boxes):
        for backend in backends:
            asyncio.run(one(backend, clock))
    for backend in backends:
        asyncio.run(crowd(backend, clock))
    how = f"bench/kubernetes_boxes.py, {args.boxes} boxes"
    write_report(RESULT, figures(clock), how, machine_of())


def figures(clock: Clock) -> dict[str, dict[str, object]]:
    """Medians in milliseconds."""
    return {
        name: {"value": round(statistics.median(seconds) * 1000, 1), "unit": "ms", "target": ""}
        for name, seconds in clock.seconds.items()
    }


async def one(backend: Kubernetes, clock: Clock) -> None:
    """One box."""
    way, data = backend.transport, os.urandom(1_000_000)
    with clock(f"{way}: make a box"):
        box = await backend.create(SPEC)
    for _ in range(COMMANDS):
        with clock(f"{way}: run true"):
            await box.exec(["true"])
    with clock(f"{way}: write 1 MB"):
        await box.write("file", data)
    with clock(f"{way}: read 1 MB"):
        await box.read("file")
    await box.close()


async def crowd(backend: Kubernetes, clock: Clock) -> None:
    """Sixteen boxes, each with a command at the same time."""
    way = backend.transport
    with clock(f"{way}: make {CROWD} boxes at once"):
        boxes = await asyncio.gather(*(backend.create(SPEC) for _ in range(CROWD)))
    for _ in range(ROUNDS):
        with clock(f"{way}: run true in {CROWD} boxes at once"):
            await asyncio.gather(*(box.exec(["true"]) for box in boxes))
    await asyncio.gather(*(box.close() for box in boxes))


if __name__ == "__main__":
    main()
