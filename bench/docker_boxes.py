"""What a Docker box costs beside the bare `docker` package with the same hardened container.

    DOCKER_HOST=... .venv/bin/python bench/docker_boxes.py [--image IMAGE] [--boxes 20]

Writes bench/results/docker_boxes.json: milliseconds to make a box that takes commands, to run
`true`, to write and read 1 kB and to remove it; and of the package alone, to create and start, to
`exec` and to remove. Boxes one after the other.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from docker.types import LogConfig
from report import machine_of, write_report

from palestra.sandbox import docker_settings as settings
from palestra.sandbox.base import BoxSpec
from palestra.sandbox.docker import Docker
from palestra.sandbox.docker_images import Image

RESULT = Path(__file__).resolve().parent / "results" / "docker_boxes.json"
COMMANDS = 10


class Clock:
    """Collects how long things of a name took."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[name].append(time.perf_counter() - began)

    def figures(self) -> dict[str, dict[str, object]]:
        """Median and 95th percentile in milliseconds."""
        found: dict[str, dict[str, object]] = {}
        for name, seconds in self.seconds.items():
            last = statistics.quantiles(seconds, n=20)[-1]
            for part, value in (("p50", statistics.median(seconds)), ("p95", last)):
                figure = {"value": round(value * 1000, 1), "unit": "ms", "target": ""}
                found[f"{name} {part}"] = figure
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", default="agentbase:bookworm")
    parser.add_argument("--boxes", type=int, default=20)
    args = parser.parse_args()
    clock, backend = Clock(), Docker(image=args.image)
    for _ in range(args.boxes):
        asyncio.run(boxes(backend, clock))
        bare(backend.daemon.api, args.image, clock)
    how = f"bench/docker_boxes.py, {args.boxes} boxes"
    write_report(RESULT, clock.figures(), how, machine_of())


async def boxes(backend: Docker, clock: Clock) -> None:
    """One of our boxes."""
    with clock("make a box"):
        box = await backend.create(BoxSpec())
    for _ in range(COMMANDS):
        with clock("run true"):
            await box.exec(["true"])
        with clock("write 1 kB"):
            await box.write("file", bytes(1000))
        with clock("read 1 kB"):
            await box.read("file")
    with clock("remove a box"):
        await box.close()


def bare(api: Any, image: str, clock: Clock) -> None:
    """The same container, as the package alone makes and uses it."""
    plan = settings.Plan(
        "palestra-bench", BoxSpec(), Image(api.inspect_image(image)["Id"], ()), 1.0, ""
    )
    asked = settings.container(plan) | {"entrypoint": ["sleep", "1000"], "stdin_open": False}
    host = api.create_host_config(log_config=LogConfig(type="none"), **settings.host(plan))
    with clock("package: create and start"):
        container = api.create_container(host_config=host, **asked)["Id"]
        api.start(container)
    for _ in range(COMMANDS):
        with clock("package: exec true"):
            job = api.exec_create(container, ["true"])["Id"]
            api.exec_start(job)
            api.exec_inspect(job)
    with clock("package: remove"):
        api.remove_container(container, force=True, v=True)


if __name__ == "__main__":
    main()
