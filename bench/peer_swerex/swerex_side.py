"""SWE-ReX's side of the comparison: one command per line of JSON, one answer per command.

Run by ``bench/peer_swerex.py`` with the Python of ``.venv-swerex``; imports nothing of ours.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time

from swerex.deployment.docker import DockerDeployment
from swerex.deployment.local import LocalDeployment
from swerex.runtime.abstract import Command


async def main() -> None:
    logging.disable(logging.CRITICAL)
    where, image, arguments = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    made = (
        LocalDeployment()
        if where == "local"
        else DockerDeployment(
            image=image, pull="never", docker_args=arguments, startup_timeout=120.0
        )
    )
    began = time.perf_counter()
    await made.start()
    tell({"start_s": time.perf_counter() - began})
    try:
        while asked := await asyncio.to_thread(sys.stdin.readline):
            tell(await measured(made.runtime, **json.loads(asked)))
    finally:
        await made.stop()


async def measured(runtime, count: int, users: int) -> dict:
    """Seconds of each command, and of all together."""
    seconds: list[float] = []

    async def use() -> None:
        for _ in range(count // users):
            began = time.perf_counter()
            ended = await runtime.execute(Command(command=["/bin/true"]))
            assert ended.exit_code == 0
            seconds.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(use() for _ in range(users)))
    return {"seconds": seconds, "wall_s": time.perf_counter() - began}


def tell(answer: dict) -> None:
    print(json.dumps(answer), file=sys.__stdout__, flush=True)


if __name__ == "__main__":
    asyncio.run(main())
