"""What a box of containers really guarantees, found by trying it from inside one."""

from __future__ import annotations

import json
from typing import Any

from palestra.rl.errors import SandboxError
from palestra.sandbox.base import Box
from palestra.sandbox.limits import Limits

LIMITS = Limits(memory=128 << 20, pids=32, tmp=16 << 20, files=16 << 20)
"""Of the box that is probed: small, so that they are reached at once."""

_PYTHON = ("python3", "-I", "-S", "-c")

# Prints the guarantees that hold. Each line tries what must fail; a success is a missing guarantee.
_FACTS = """
import ctypes, json, os, socket
def fails(what, *arguments):
    try:
        what(*arguments)
    except OSError:
        return True
    return False
def appends(path):
    open(path, "a").close()
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
status = {name: value.strip() for name, value in status.items()}
libc = ctypes.CDLL(None)
none = "0" * 16
outside = ["/palestra", "/usr/palestra", "/etc/palestra", "/proc/sys/kernel/hostname"]
interfaces = [line.split(":")[0].strip() for line in open("/proc/net/dev").readlines()[2:]]
def routed():
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(("192.0.2.1", 9))
# Where the first process of the box is of our user this reaches it: going on shows what it does.
untouchable = fails(os.kill, 1, 9) or os.getpid() != 1
folders = [os.statvfs(path) for path in (".", "/tmp", "/dev/shm")]
sizes = [folder.f_blocks * folder.f_frsize for folder in folders]
supervised = b"palestra" in open("/proc/1/cmdline", "rb").read()
held = {
    "fs": all(fails(appends, path) for path in outside),
    "no_net": fails(routed),
    "netns": interfaces == ["lo"],
    "signals": untouchable and supervised,
    "no_new_privs": status["NoNewPrivs"] == "1" and status["CapEff"] == status["CapPrm"] == none,
    "user": os.getuid() != 0 and os.geteuid() != 0,
    "pidns": supervised,
    "tmp": sizes[1] <= %d,
    "disk": sum(sizes) < %d,
    "seccomp": [libc.unshare(0x10000000), libc.ptrace(0, 0, 0, 0)] == [-1, -1],
}
print(json.dumps([name for name in held if held[name]]))
"""

_DAEMON = "setsid setsid sleep 3600 >/dev/null 2>&1 &"

# Prints whether the daemon above is still there, and how many processes could be made.
_PROCESSES = """
import json, os, time
names = [open(f"/proc/{pid}/comm").read() for pid in os.listdir("/proc") if pid.isdigit()]
made = 0
try:
    while made < 1000:
        if os.fork() == 0:
            time.sleep(3600)
        made += 1
except OSError:
    pass
print(json.dumps(["sleep\\n" in names, made]))
"""

_HUNGRY = "print(len(bytearray(%d)))"


async def probe(box: Box, limits: Limits) -> frozenset[str]:
    """The guarantees that a fresh box with ``limits`` holds; raises ``SandboxError``."""
    held = set(await _answer(box, _FACTS % (limits.tmp, limits.memory)))
    await box.exec(_DAEMON)
    survived, made = await _answer(box, _PROCESSES)
    ended = await box.exec([*_PYTHON, _HUNGRY % limits.memory])
    held |= {"kill_tree"} if not survived else set()
    held |= {"pids"} if made < limits.pids else set()
    held |= {"memory"} if ended.oom else set()
    return frozenset(held)


async def _answer(box: Box, script: str) -> list[Any]:
    ended = await box.exec([*_PYTHON, script])
    try:
        return list(json.loads(ended.stdout))
    except ValueError:
        text = ended.stderr.decode(errors="replace").strip()[-200:]
        raise SandboxError(f"cannot probe the box: {text or ended.exit_code}") from None
