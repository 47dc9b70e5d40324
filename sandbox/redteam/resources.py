"""Using up time, memory, disk or patience, so that nobody can tell what was wrong."""

from __future__ import annotations

from collections.abc import Mapping

from palestra.sandbox.redteam.attack import Attack

RESOURCES: Mapping[str, Attack] = {
    "hangs": Attack(
        row=18,
        tries="never answers",
        code="import time\ndef attack(*a, **k):\n    while True: time.sleep(60)",
    ),
    "fork-bomb": Attack(
        row=18,
        tries="starts processes until none can be started",
        code="import os\ndef attack(*a, **k):\n    while True:\n        try:\n"
        "            os.fork()\n        except OSError:\n            pass",
    ),
    "hogs-memory": Attack(
        row=18,
        tries="takes memory until there is none",
        code="def attack(*a, **k):\n    xs = []\n    while True: xs.append(bytearray(1 << 26))",
    ),
    "fills-the-disk": Attack(
        row=18,
        tries="writes files until the disk is full",
        code="import os\ndef attack(*a, **k):\n    for folder in ('.', '/tmp', '/dev/shm'):\n"
        "        try:\n            with open(f'{folder}/fill', 'wb') as f:\n"
        "                for _ in range(20): f.write(bytes(1 << 20))\n"
        "        except OSError:\n            pass\n    return INERT",
    ),
    "fills-its-own-disk": Attack(
        row=18,
        tries="writes a large file and many small ones in its own box",
        script="dd if=/dev/zero of=fill bs=1M count=80; for i in $(seq 200); do : > f$i; done",
    ),
    "prints-much": Attack(
        row=18,
        tries="prints 100 MB",
        code="import os\ndef attack(*a, **k):\n"
        "    for _ in range(1600): os.write(1, b'x' * 65536)\n    return INERT",
    ),
    "huge-value": Attack(
        row=18,
        tries="returns 32 MB of text",
        code="def attack(*a, **k): return 'x' * (32 << 20)",
    ),
    "huge-integer": Attack(
        row=18,
        tries="returns a number that takes long to print or compare",
        code="def attack(*a, **k): return 1 << (1 << 20)",
    ),
    "endless-value": Attack(
        row=18,
        tries="returns a list that holds itself",
        code="def attack(*args, **k):\n    a = []\n    a.append(a)\n    return a",
    ),
    "deep-value": Attack(
        row=18,
        tries="returns lists nested 100000 deep",
        code="def attack(*b, **k):\n    a = 1\n    for _ in range(100000): a = [a]\n    return a",
    ),
    "endless-generator": Attack(
        row=18,
        tries="returns a generator that never ends",
        code="def attack(*a, **k):\n    while True: yield 0",
    ),
    "recursion": Attack(
        row=18, tries="recurses without end", code="def attack(*a, **k): return attack(*a, **k)"
    ),
    "segfault": Attack(
        row=18,
        tries="breaks the interpreter",
        code="import ctypes\ndef attack(*a, **k): ctypes.string_at(0)",
    ),
    "closes-descriptors": Attack(
        row=18, tries="closes every descriptor", code="import os\nos.closerange(0, 4096)"
    ),
    "replaces-descriptors": Attack(
        row=18,
        tries="makes every descriptor an endless stream of zeros",
        code="import os\nn = os.open('/dev/zero', os.O_RDWR)\n"
        "for fd in range(0, 30):\n    if fd != n:\n        os.dup2(n, fd)",
    ),
    "stops-the-clock": Attack(
        row=25,
        tries="replaces clocks and timers, then never answers",
        code="import signal, time\n"
        "for n in ('time', 'monotonic', 'perf_counter', 'process_time'):\n"
        "    setattr(time, n, lambda: 0.0)\n"
        "signal.setitimer = signal.alarm = lambda *a: None\n"
        "for n in (signal.SIGALRM, signal.SIGXCPU, signal.SIGTERM):\n"
        "    signal.signal(n, signal.SIG_IGN)\n"
        "def attack(*a, **k):\n    while True: pass",
    ),
}
