"""A box of any backend, by hand: the same few calls, whatever isolates.

.venv/bin/python examples/any_sandbox.py                      # the strongest of this machine's own
.venv/bin/python examples/any_sandbox.py docker python:3.11-slim
"""

from __future__ import annotations

import asyncio
import sys

from palestra.sandbox.auto import choose, make
from palestra.sandbox.base import BoxSpec

ATTEMPTS = {
    "the network": "import socket; socket.create_connection(('192.0.2.1', 80), 1)",
    "a file of the host": "open('/etc/shadow').read()",
    "a file outside": "open('/usr/mine', 'w')",
}


async def main() -> None:
    """Write a program, run it, read what it wrote; then try what must not work."""
    name, image = (*sys.argv[1:], "", "")[:2]
    backend = make(name, image=image) if image else choose(backend=name or "auto")
    print(f"{backend.name}: {', '.join(sorted(backend.guarantees))}")
    async with backend.open(BoxSpec(labels={"example": "any_sandbox"})) as box:
        await box.write("count.py", b"open('sum.txt', 'w').write(str(sum(range(5))))\n")
        ended = await box.exec(["python3", "count.py"], timeout=20)
        print(f"exit code {ended.exit_code}, sum.txt holds {(await box.read('sum.txt')).decode()}")
        for what, code in ATTEMPTS.items():
            ended = await box.exec(["python3", "-c", code], timeout=20)
            print(f"{what}: {'refused' if ended.exit_code else 'REACHED'}")
        ended = await box.exec("while :; do :; done", timeout=0.5)
        print("an endless loop:", "stopped" if ended.timed_out else "STILL RUNNING")


asyncio.run(main())
