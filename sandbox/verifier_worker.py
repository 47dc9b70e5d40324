"""Runs a verifier's script inside the box and reports the files that it wrote rewards to.

Runs where ``worker`` does: standard library only. The script and all that it starts are ended
before the files are read, so that nothing it left running writes them afterwards.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import stat
import time

from palestra.sandbox.answers import HELLO, write
from palestra.sandbox.candidate import lay_out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypedDict

    class Plan(TypedDict):
        """Files of ``/tests`` (bytes, mode), which of them bash runs, how long, with what set."""

        tests: dict[str, tuple[bytes, int]]
        script: str
        timeout: float
        env: dict[str, str]


TESTS, LOGS = "/tests", "/logs"
REWARDS = ("reward.txt", "reward.json")
_MAX_BYTES = 1 << 16
_SUBREAPER, _DUMPABLE = 36, 4


def main(plan: Plan) -> None:
    """Run the script in the work folder; returns when all is reported."""
    report = int(os.environ.pop("PALESTRA_REPORT_FD"))
    libc = ctypes.CDLL(None)
    # What the script leaves running is ours to end, and none of it may open our descriptors.
    if libc.prctl(_SUBREAPER, 1, 0, 0, 0) or libc.prctl(_DUMPABLE, 0, 0, 0, 0):
        raise OSError("cannot hide from the script")
    lay_out(TESTS, plan["tests"])
    for name in ("verifier", "agent", "artifacts"):
        os.makedirs(f"{LOGS}/{name}", exist_ok=True)  # noqa: PTH103
    environment = {**os.environ, **plan["env"]}
    if not shutil.which("bash", path=environment.get("PATH")):
        raise OSError("there is no bash")
    write(report, HELLO)  # what fails before is not the work's fault
    pid = os.fork()
    if pid == 0:
        os.close(report)
        os.setsid()
        os.execvpe("bash", ["bash", f"{TESTS}/{plan['script']}"], environment)
    ended = wait(pid, plan["timeout"])
    end_all()
    found = {name: text(f"{LOGS}/verifier/{name}") for name in REWARDS}
    write(report, json.dumps({"ended": ended, **found}).encode())


def wait(pid: int, seconds: float) -> bool:
    """Whether the process ends in time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return True
        time.sleep(0.02)
    return False


def end_all() -> None:
    """Kill every descendant, those that were left to us included."""
    for _ in range(500):
        with open(f"/proc/self/task/{os.getpid()}/children") as file:  # noqa: PTH123
            pids = [int(pid) for pid in file.read().split()]
        if not pids:
            return
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    raise OSError("processes of the script do not end")


def text(path: str) -> str | None:
    """A small regular file, never through a link; None where there is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        return os.read(fd, _MAX_BYTES).decode(errors="replace")
    finally:
        os.close(fd)
