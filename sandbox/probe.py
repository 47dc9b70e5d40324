"""What a box of containers really guarantees, found by trying it from inside one."""

from __future__ import annotations

import json

from palestra.rl.errors import SandboxError
from palestra.sandbox.base import Box
from palestra.sandbox.limits import Limits

LIMITS = Limits(memory=128 << 20, pids=32, tmp=16 << 20, files=16 << 20)
"""Of the box that is probed: small, so that they are reached at once."""

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
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sizes = [os.statvfs(path) for path in (".", "/tmp", "/dev/shm")]
held = {
    "fs": all(fails(appends, path) for path in outside),
    "no_net": fails(udp.connect, ("192.0.2.1", 9)),
    "netns": interfaces == ["lo"],
    "signals": fails(os.kill, 1, 0),
    "no_new_privs": status["NoNewPrivs"] == "1" and status["CapEff"] == status["CapPrm"] == none,
    "user": os.getuid() != 0 and os.geteuid() != 0,
    "pidns": b"palestra" in open("/proc/1/cmdline", "rb").read(),
    "disk": sum(size.f_blocks * size.f_frsize for size in sizes) < %d,
    "seccomp": status["Seccomp"] == "2" and libc.unshare(0x10000000) == libc.ptrace(0, 0, 0, 0),
}
print(json.dumps([name for name in held if held[name]]))
"""

_DAEMON = "setsid setsid sleep 3600 >/dev/null 2>&1 & echo $!"

_FORKS = """
import os, time
made = 0
try:
    while made < 1000:
        if os.fork() == 0:
            time.sleep(3600)
        made += 1
except OSError:
    print(made)
"""


async def probe(box: Box, limits: Limits) -> frozenset[str]:
    """The guarantees that a fresh box with ``limits`` holds; raises ``SandboxError``."""
    facts = await box.exec(["python3", "-I", "-S", "-c", _FACTS % limits.memory])
    try:
        held = set(json.loads(facts.stdout))
    except ValueError:
        text = facts.stderr.decode(errors="replace").strip()[-200:]
        raise SandboxError(f"cannot probe the box: {text or facts.exit_code}") from None
    await box.exec(_DAEMON)
    if (
        await box.exec(
            "ps=0; for p in /proc/[0-9]*/comm; do read c <$p; [ $c = sleep ] && ps=1; "
            "done; exit $ps"
        )
    ).exit_code == 0:
        held.add("kill_tree")
    forks = await box.exec(["python3", "-I", "-S", "-c", _FORKS])
    if forks.stdout.strip().isdigit() and int(forks.stdout) < limits.pids:
        held.add("pids")
    hungry = f"x = bytearray({limits.memory}); print(len(x))"
    if (await box.exec(["python3", "-I", "-S", "-c", hungry])).oom:
        held.add("memory")
    return frozenset(held)
