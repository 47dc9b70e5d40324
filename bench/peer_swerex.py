#!/usr/bin/env python3
"""Palestra's boxes beside SWE-ReX: commands in one box, one and sixteen at once, by turns.

    .venv/bin/python bench/peer_swerex.py [--rounds 6] [--count 160] [--image IMAGE]

SWE-ReX lives in an environment of its own (``.venv-swerex``, made on the first run); it is not a
dependency. Sides take turns within one run, in changing order, so that other users of the machine
take from both. Writes bench/results/peer_swerex.json.

local   its ``LocalDeployment`` runs a plain child process, without a box; ours is bubblewrap, which
        makes new namespaces for every command. What isolation costs, not who is faster.
docker  its ``DockerDeployment`` beside our Docker boxes, with equal limits on memory, processors
        and processes. It installs itself over the network when a container starts; here an image
        that has it is built first from ``.venv-swerex`` (the image's Python must be of that
        version).

The command is ``/bin/true``: ``execute`` of SWE-ReX and ``exec`` of ours, which both start a
process. Its ``run_in_session``, which types into a shell, has waits of fixed length that ran out on
a busy machine, and is not measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from report import machine_of, write_report

from palestra.sandbox.auto import make
from palestra.sandbox.base import Box, BoxSpec
from palestra.sandbox.limits import Limits

ROOT = Path(__file__).resolve().parents[1]
RESULT = Path(__file__).resolve().parent / "results" / "peer_swerex.json"
SIDE = Path(__file__).resolve().parent / "peer_swerex" / "swerex_side.py"
VENV = ROOT / ".venv-swerex"
PINS = ("swe-rex==1.4.0", "aiohttp")
TAG = "palestra-bench-swerex:1.4.0"
USERS = (1, 16)
SIDES = ("palestra", "SWE-ReX")
BACKENDS = {"local": "bubblewrap", "docker": "docker"}
DOCKERFILE = """
FROM {image}
COPY site-packages /opt/swerex
RUN printf '#!/bin/sh\\nPYTHONPATH=/opt/swerex exec python3 -m swerex.server "$@"\\n' \
    > /usr/local/bin/swerex-remote && chmod +x /usr/local/bin/swerex-remote && \
    swerex-remote --version
"""
Seconds = dict[tuple[str, int], list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--count", type=int, default=160, help="commands of a side and round")
    parser.add_argument("--image", default="agentbase:bookworm")
    args = parser.parse_args()
    python = ensure_venv()
    figures: dict[str, dict[str, object]] = {}
    for where in BACKENDS:
        if where == "docker" and not os.environ.get("DOCKER_HOST"):
            print("docker: DOCKER_HOST is not set")
            continue
        if where == "docker":
            build_image(args.image)
        figures |= asyncio.run(compared(where, python, args))
    how = f"bench/peer_swerex.py, {args.rounds} rounds, load {os.getloadavg()[0]:.1f}"
    write_report(RESULT, figures, how, machine_of())


def ensure_venv() -> Path:
    """Python of ``.venv-swerex``, made when it is missing."""
    python, marker = VENV / "bin" / "python", VENV / "peer_swerex.pins"
    if not marker.is_file() or tuple(marker.read_text().split()) != PINS:
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *PINS], check=True)
        marker.write_text("\n".join(PINS))
    return python


def build_image(base: str) -> None:
    """An image with SWE-ReX in it, where there is none yet."""
    if subprocess.run(["docker", "image", "inspect", TAG], capture_output=True).returncode == 0:
        return
    [packages] = VENV.glob("lib/python3*/site-packages")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "Dockerfile").write_text(DOCKERFILE.format(image=base))
        subprocess.run(["cp", "-r", str(packages), folder], check=True)
        environment = os.environ | {"DOCKER_BUILDKIT": "0"}
        subprocess.run(["docker", "build", "-q", "-t", TAG, folder], check=True, env=environment)


async def compared(where: str, python: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Figures of both sides in one place."""
    limits = Limits()
    options = {"image": args.image} if where == "docker" else {}
    backend = await asyncio.to_thread(make, BACKENDS[where], **options)
    given = [f"--memory={limits.memory}", f"--memory-swap={limits.memory}", "--cpus=1"]
    given.append(f"--pids-limit={limits.pids}")
    seconds: Seconds = defaultdict(list)
    walls: dict[tuple[str, int], float] = defaultdict(float)
    with their_side(python, where, given) as ask:
        began = time.perf_counter()
        async with backend.open(BoxSpec(limits=limits)) as box:
            started = {"palestra": time.perf_counter() - began, "SWE-ReX": ask()["start_s"]}
            await measured(box, args.count // 4, 1)
            ask(count=args.count // 4, users=1)
            for turn in range(args.rounds):
                for users in USERS:
                    for side in SIDES if turn % 2 else SIDES[::-1]:
                        if side == "palestra":
                            found = await measured(box, args.count, users)
                        else:
                            found = ask(count=args.count, users=users)
                        seconds[side, users] += found["seconds"]
                        walls[side, users] += found["wall_s"]
    figures = {
        f"{where}: {side}, until the first command": figure(took * 1e3, "ms")
        for side, took in started.items()
    }
    for (side, users), found in sorted(seconds.items(), key=lambda item: (item[0][1], item[0][0])):
        name = f"{where}: {side}, {users} at once"
        figures[f"{name}: exec p50"] = figure(statistics.median(found) * 1e3, "ms")
        figures[f"{name}: exec p95"] = figure(statistics.quantiles(found, n=20)[-1] * 1e3, "ms")
        figures[f"{name}: execs"] = figure(len(found) / walls[side, users], "1/s")
    for users in USERS:
        ratio = walls["SWE-ReX", users] / walls["palestra", users]
        figures[f"{where}: execs/s of palestra to SWE-ReX's, {users} at once"] = figure(
            ratio, "times"
        )
    return figures


async def measured(box: Box, count: int, users: int) -> Mapping[str, Any]:
    """Seconds of each command, and of all together."""
    seconds: list[float] = []

    async def use() -> None:
        for _ in range(count // users):
            began = time.perf_counter()
            assert (await box.exec(["/bin/true"])).exit_code == 0
            seconds.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(use() for _ in range(users)))
    return {"seconds": seconds, "wall_s": time.perf_counter() - began}


@contextmanager
def their_side(python: Path, where: str, arguments: list[str]) -> Iterator[Any]:
    """The process of the other side: asked with arguments it measures, without it says hello."""
    words = [str(python), str(SIDE), where, TAG, json.dumps(arguments)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdin and process.stdout

        def ask(**wanted: object) -> Any:
            assert process.stdin and process.stdout
            if wanted:
                print(json.dumps(wanted), file=process.stdin, flush=True)
            return json.loads(process.stdout.readline())

        yield ask
        process.stdin.close()


def figure(value: float, unit: str) -> dict[str, object]:
    return {"value": round(value, 3), "unit": unit, "target": ""}


if __name__ == "__main__":
    main()
