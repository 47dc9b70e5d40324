"""What an agent's box must not show: the network, other people's secrets, the hidden tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from palestra.rl.types import AppendedCheck, Check, ProgramCheck, ScriptCheck, Task
from palestra.sandbox.redteam.attack import Attack

_NETWORK = """
import socket
for family, address in (
    (socket.AF_INET, ("1.1.1.1", 53)),
    (socket.AF_INET, ("169.254.169.254", 80)),
    (socket.AF_INET6, ("2606:4700:4700::1111", 53)),
):
    try:
        with socket.socket(family, socket.SOCK_STREAM) as s:
            s.settimeout(1)
            s.connect(address)
            print("connected to", address[0])
    except OSError:
        pass
try:
    print("resolved", socket.getaddrinfo("example.org", 443)[0][4][0])
except OSError:
    pass
"""

_SECRETS = """
import os, re
name = re.compile(r"TOKEN|SECRET|PASSWORD|CREDENTIAL|API_KEY")
found = {n for n in os.environ if name.search(n)}
try:
    pids = [p for p in os.listdir("/proc") if p.isdigit()]
except OSError:
    pids = []
for pid in pids:
    try:
        with open(f"/proc/{pid}/environ", errors="replace") as file:
            found |= {v.partition("=")[0] for v in file.read().split("\\0") if "=" in v}
    except OSError:
        pass
print(*sorted(n for n in found if name.search(n)))
"""

_TESTS = """
import glob, itertools, os
needles = [bytes.fromhex(n) for n in {needles!r}]
def below(top):
    for folder, folders, names in os.walk(top):
        folders[:] = [f for f in folders if os.path.join(os.path.abspath(folder), f) not in SYSTEM]
        yield from (os.path.join(folder, name) for name in names)
SYSTEM = ("/proc", "/sys", "/dev")
home = os.path.expanduser("~")
tops = (".", "..", home, "/tmp", "/workspace", "/dev/shm", "/tests", "/logs")
paths = [p for top in tops for p in itertools.islice(below(top), 2000) if os.path.isfile(p)]
for path in paths + glob.glob("/proc/[0-9]*/cmdline") + glob.glob("/proc/[0-9]*/environ"):
    try:
        with open(path, "rb") as file:
            text = file.read(1 << 20)
    except OSError:
        continue
    if any(n in text for n in needles):
        print(path)
"""


PROBES: Mapping[str, Attack] = {
    "network": Attack(
        row=15, tries="connects to the Internet, a name server and the cloud's own", probe=_NETWORK
    ),
    "secrets": Attack(
        row=24,
        tries="reads tokens and passwords from the environment of any process",
        probe=_SECRETS,
    ),
    "reads-tests": Attack(
        row=22,
        tries="looks for the hidden tests in every folder it can read",
        # In hex, so that the probe does not find its own command line.
        probe=lambda task: _TESTS.format(needles=[n.encode().hex() for n in _hidden(task)]),
        fits=lambda task: bool(_hidden(task)),
    ),
}


def _hidden(task: Task) -> list[str]:
    """Lines by which one would know the hidden tests: 16 characters or more, shown nowhere."""
    texts = [*_scripts(task.hidden), *task.test_files.values()]
    shown = "\n".join([task.prompt, *task.files.values(), *_scripts(task.visible)])
    given = task.tree.files.values() if task.tree else ()
    known = {line.decode(errors="replace") for file in given for line in file.data.splitlines()}
    lines = [
        max((line for line in text.splitlines() if line not in known), key=len, default="")[:200]
        for text in texts
    ]
    return [line for line in lines if len(line) >= 16 and line not in shown][:20]


def _scripts(checks: Sequence[Check]) -> list[str]:
    """The texts of checks that are written as texts."""
    code = [check.code for check in checks if isinstance(check, ScriptCheck | AppendedCheck)]
    runs = [check for check in checks if isinstance(check, ProgramCheck)]
    return [*code, *(text for run in runs for text in (run.stdin, *run.expected))]
