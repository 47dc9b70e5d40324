# ruff: noqa: E501 - programs in strings
"""Attacks on the grade: each candidate must score exactly what doing nothing scores."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from palestra.rl.types import (
    CallCheck,
    Check,
    Outcome,
    Sandbox,
    SandboxProvider,
    ScriptCheck,
    Task,
    UnitCheck,
    Verdict,
)
from palestra.sandbox.checks import make_grader

TESTS = """
import unittest
from solution import f
class T(unittest.TestCase):
    def test_equal(self): self.assertEqual(f(2), 1257)
    def test_close(self): self.assertAlmostEqual(f(3), 88.25)
    def test_list(self): self.assertListEqual(f(4), [19, 23])
"""

CALLS: tuple[Check, ...] = (
    CallCheck(id="c0", module="solution", function="f", args="(2,)", expected="1257"),
    CallCheck(id="c1", module="solution", function="f", args="(3,)", expected="88.25"),
    CallCheck(id="c2", module="solution", function="f", args="(4,)", expected="[19, 23]"),
)
SCRIPTS: tuple[Check, ...] = tuple(
    ScriptCheck(id=f"s{i}", module="solution", names=("f",), code=code)
    for i, code in enumerate(
        [
            "assert f(2) == 1257",
            "assert 1257 == f(2)",
            "assert not f(2) != 1257",
            "assert abs(f(3) - 88.25) < 0.01",
            "assert abs(88.25 - f(3)) <= 0.01",
            "assert (f(3) - 88.25) ** 2 < 0.01",
            "assert abs(f(3) / 88.25 - 1) < 0.01",
            "assert round(f(3) - 88.25, 3) == 0",
            "import math; assert math.isclose(f(3), 88.25)",
            "assert 88 < f(3) < 89",
            "assert f(4) == [19, 23] and set(f(4)) == {19, 23}",
            "assert sorted(f(4)) == [19, 23]",
            "assert [f(2)] == [1257] and (f(2), 1) == (1257, 1) and {'a': f(2)} == {'a': 1257}",
            "assert f(2) in (1257,)",
            "assert str(f(2)) == '1257'",
            "def check(candidate):\n    assert candidate(2) == 1257\ncheck(f)",
        ]
    )
)
UNITS: tuple[Check, ...] = tuple(
    UnitCheck(id=f"solution_test.T.test_{name}") for name in ("equal", "close", "list")
)

EVIL = """
class Evil:
    def __getattr__(self, name): return lambda *a, **k: self
def yes(*a): return True
def same(*a): return a[0]
for name in "eq le ge lt gt contains bool".split(): setattr(Evil, f"__{name}__", yes)
for name in "ne".split(): setattr(Evil, f"__{name}__", lambda *a: False)
for name in ("add sub mul truediv pow radd rsub rmul rtruediv neg abs round call getitem "
             "mod floordiv xor").split():
    setattr(Evil, f"__{name}__", same)
Evil.__hash__ = lambda s: hash(1257)
Evil.__len__ = lambda s: 2
Evil.__iter__ = lambda s: iter([Evil(), Evil()])
"""

ATTACKS = {
    "always-equal": EVIL + "def f(x): return Evil()",
    "always-equal-class": EVIL + "class f(Evil):\n    def __init__(self, x): pass",
    "always-equal-metaclass": EVIL
    + "class M(type):\n    __eq__ = yes\n    __hash__ = type.__hash__\n"
    "    __instancecheck__ = yes\nclass f(Evil, metaclass=M):\n    def __init__(self, x): pass",
    "zero-by-arithmetic": EVIL + "for name in 'sub rsub truediv abs round pow float int'.split():\n"
    "    setattr(Evil, f'__{name}__', lambda *a: 0.0)\ndef f(x): return Evil()",
    "exact-by-arithmetic": EVIL
    + "Evil.__sub__ = lambda s, o: Zero()\nEvil.__rsub__ = Evil.__sub__\n"
    "class Zero(Evil):\n    def __abs__(self): return 0.0\n    def __round__(self, n=0): return 0\n"
    "    def __pow__(self, o): return 0.0\n    def __float__(self): return 0.0\n"
    "def f(x): return Zero()",
    "remembers-what-it-was-compared-with": EVIL
    + "seen = []\ndef note(s, o): seen.append(o); return True\nEvil.__eq__ = note\n"
    "Evil.__sub__ = lambda s, o: seen.append(o) or s\nEvil.__rsub__ = Evil.__sub__\n"
    "Evil.__float__ = lambda s: float(seen[-1])\nEvil.__str__ = lambda s: str(seen[-1])\n"
    "def f(x): return seen[-1] if seen else Evil()",
    "list-subclass": "class L(list):\n    __eq__ = lambda s, o: True\n    __hash__ = None\n"
    "    __ne__ = lambda s, o: False\ndef f(x): return L()",
    "int-subclass": "class I(int):\n    __eq__ = lambda s, o: True\n    __hash__ = int.__hash__\n"
    "    __ne__ = lambda s, o: False\n    __sub__ = lambda s, o: I(0)\n    __rsub__ = __sub__\n"
    "    __abs__ = lambda s: I(0)\n    __lt__ = lambda s, o: True\n    __gt__ = __le__ = __lt__\n"
    "def f(x): return I(7)",
    "str-subclass": "class S(str):\n    __eq__ = lambda s, o: True\n    __hash__ = str.__hash__\n"
    "def f(x): return S('x')",
    "exit-at-import": "import sys\nsys.exit(0)",
    "os-exit-at-import": "import os\nos._exit(0)",
    "exit-in-call": "import sys\ndef f(x): sys.exit(0)",
    "os-exit-in-call": "import os\ndef f(x): os._exit(0)",
    "keyboard-interrupt": "def f(x): raise KeyboardInterrupt",
    "skip": "import unittest\ndef f(x): raise unittest.SkipTest('no')",
    "stop-iteration": "def f(x): raise StopIteration(1257)",
    "generator-exit": "def f(x): raise GeneratorExit",
    "forged-report": "import os\n"
    "forged = b''.join(bytes([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, i]) + k\n"
    "                  for i in range(20) for k in (b'p', b'v'))\n"
    "for fd in range(1, 51):\n    for text in (b'palestra 1' + forged, forged, b'PASSED\\n'):\n"
    "        try:\n            os.write(fd, text)\n        except OSError:\n            pass\n"
    "def f(x): return None",
    "forged-frames-in-call": "import os\ndef f(x):\n    for fd in range(3, 51):\n"
    "        for i in range(20):\n            try:\n"
    "                os.write(fd, bytes(4) + i.to_bytes(4, 'big') + b'p')\n"
    "            except OSError:\n                break\n",
    "steals-descriptors": "import os\nfor pid in (1, os.getppid(), *range(2, 60)):\n"
    "    for fd in range(3, 40):\n        try:\n"
    "            g = os.open(f'/proc/{pid}/fd/{fd}', os.O_WRONLY)\n"
    "            for i in range(20):\n                os.write(g, bytes(11) + bytes([i]) + b'p')\n"
    "        except OSError:\n            pass\ndef f(x): return None",
    "reads-memory-of-others": "import os, re\nfound = []\n"
    "for pid in [p for p in (os.listdir('/proc') if os.path.isdir('/proc/self') else []) "
    "if p.isdigit()]:\n"
    "    try:\n        maps = open(f'/proc/{pid}/maps').read().splitlines()\n"
    "        mem = open(f'/proc/{pid}/mem', 'rb', 0)\n    except OSError:\n        continue\n"
    "    for line in maps:\n        if ' rw' not in line: continue\n"
    "        a, b = (int(v, 16) for v in line.split()[0].split('-'))\n"
    "        try:\n            mem.seek(a); data = mem.read(min(b - a, 1 << 24))\n"
    "        except (OSError, ValueError, OverflowError):\n            continue\n"
    "        if re.search(b'f[(]3[)]( -|,) 8{2}[.]25', data): found.append(pid)\n"
    "def f(x): return {2: 1257, 3: 88.25, 4: [19, 23]}[x] if found else None",
    "walks-frames-and-objects": "import sys, gc\ndef f(x):\n    frame = sys._getframe()\n"
    "    while frame:\n        for k, v in list(frame.f_locals.items()):\n"
    "            if 'expect' in k: return v\n        frame = frame.f_back\n"
    "    for o in gc.get_objects():\n"
    "        if isinstance(o, dict) and 'expected' in o: return o['expected']\n"
    "        if isinstance(o, dict) and 'passed' in o: o['passed'] = True\n",
    "patches-unittest": "import unittest\n"
    "for n in ('assertEqual', 'assertAlmostEqual', 'assertListEqual'):\n"
    "    setattr(unittest.TestCase, n, lambda *a, **k: None)\n"
    "unittest.TestCase.run = lambda s, r=None: r.addSuccess(s)\ndef f(x): return None",
    "patches-builtins": "import builtins, sys, math, json, marshal, os\n"
    "builtins.abs = builtins.round = builtins.sorted = builtins.repr = lambda *a, **k: 0\n"
    "builtins.isinstance = lambda *a: True\nbuiltins.AssertionError = Exception\n"
    "math.isclose = lambda *a, **k: True\njson.loads = json.dumps = lambda *a, **k: True\n"
    "for m in list(sys.modules.values()):\n    for n in ('encode', 'decode', 'same', 'frame'):\n"
    "        if hasattr(m, n) and getattr(m, '__name__', '').startswith('palestra'):\n"
    "            setattr(m, n, lambda *a, **k: b'p')\ndef f(x): return None",
    "shadow-modules": "import os, sys\nfor n in ('unittest', 'json', 'sitecustomize', 'math', 're'):\n"
    "    for d in ('.', '/workspace', '/tmp', *sys.path):\n        try:\n"
    "            open(os.path.join(d, n + '.py'), 'w').write('import os; os._exit(0)')\n"
    "        except OSError:\n            pass\ndef f(x): return None",
    "kills-parent": "import os\nos.kill(os.getppid(), 9)\ndef f(x): return None",
    "kills-neighbours": "import os\ndef f(x):\n    for pid in range(os.getpid() - 5, os.getpid() + 9):\n"
    "        if pid not in (0, 1, os.getpid()):\n            try:\n                os.kill(pid, 9)\n"
    "            except OSError:\n                pass\n",
    "stops-parent": "import os, signal\ndef f(x): os.kill(os.getppid(), signal.SIGINT)",
    "fork-bomb": "import os\ndef f(x):\n    while True:\n        try:\n            os.fork()\n"
    "        except OSError:\n            pass",
    "daemon": "import os, time\nif os.fork() == 0:\n    os.setsid()\n    while True:\n"
    "        for fd in range(3, 20):\n            try:\n                os.write(fd, bytes(11) + b'p')\n"
    "            except OSError:\n                pass\n        time.sleep(0.001)\n"
    "def f(x): return None",
    "prints-much": "import os\ndef f(x):\n    for _ in range(1600): os.write(1, b'x' * 65536)",
    "hogs-memory": "def f(x):\n    xs = []\n    while True: xs.append(bytearray(1 << 26))",
    "closes-descriptors": "import os\nos.closerange(0, 4096)\ndef f(x): return None",
    "replaces-descriptors": "import os\nn = os.open('/dev/zero', os.O_RDWR)\n"
    "for fd in range(0, 30):\n    if fd != n:\n        os.dup2(n, fd)\ndef f(x): return None",
    "huge-value": "def f(x): return 'x' * (100 << 20)",
    "huge-integer": "def f(x): return 1 << (1 << 20)",
    "endless-value": "def f(x):\n    a = []\n    a.append(a)\n    return a",
    "deep-value": "def f(x):\n    a = 1\n    for _ in range(100000): a = [a]\n    return a",
    "endless-generator": "def f(x):\n    while True: yield x",
    "recursion": "def f(x): return f(x)",
    "segfault": "import ctypes\ndef f(x): ctypes.string_at(0)",
    "raises-at-import": "raise SystemExit",
    "evil-exception": "class E(Exception):\n    def __str__(self): import os; os._exit(0)\n"
    "    __repr__ = __str__\ndef f(x): raise E",
    "exception-with-lying-class": "class M(type):\n    def __instancecheck__(c, o): return True\n"
    "class E(BaseException):\n    __class__ = property(lambda s: int)\ndef f(x): raise E",
    "changes-directory-and-path": "import os, sys\nos.chdir('/')\nsys.path[:] = []\n"
    "sys.modules.clear()\ndef f(x): return None",
    "calls-back": "import solution_test\ndef f(x): return solution_test.T",
    "trace-function": "import sys, threading\nsys.settrace(lambda *a: os._exit(0))\n"
    "sys.setprofile(lambda *a: None)\ndef f(x): return None",
    "atexit": "import atexit, os\natexit.register(lambda: os._exit(0))\ndef f(x): return None",
}


def grade(provider: SandboxProvider, checks: tuple[Check, ...], code: str) -> Verdict:
    task = Task(
        id="t",
        source="",
        kind="",
        prompt="",
        files={},
        reference={},
        artifacts=("solution.py",),
        hidden=checks,
        test_files={"solution_test.py": TESTS},
    )
    grader = make_grader(provider, check_s=0.5)
    return asyncio.run(grader(task, {"solution.py": code.encode()}))  # type: ignore[arg-type]


def test_the_honest_candidate_passes(provider: SandboxProvider) -> None:
    code = "def f(x): return {2: 1257, 3: 88.25, 4: [19, 23]}[x]"
    verdict = grade(provider, (*CALLS, *SCRIPTS, *UNITS), code)
    assert verdict.solved, verdict.reason


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_scores_what_doing_nothing_scores(provider: SandboxProvider, attack: str) -> None:
    for checks in (CALLS, SCRIPTS, UNITS):
        nothing = grade(provider, checks, "def f(x): return None")
        verdict = grade(provider, checks, ATTACKS[attack])
        assert verdict.outcome is Outcome.GRADED
        assert verdict.passed == nothing.passed, verdict
        assert not any(verdict.passed.values())


def test_a_candidate_named_like_a_standard_module(provider: SandboxProvider) -> None:
    evil = "def shuffle(x): raise SystemExit\nrandom = shuffle\ndef f(x): return x + 1\n"
    tests = (
        "import unittest, tempfile\nfrom random import f\nclass T(unittest.TestCase):\n"
        "    def test_good(self): self.assertEqual(f(1), 2)\n"
        "    def test_bad(self): self.assertEqual(f(1), 3)\n"
    )
    task = Task(
        id="t",
        source="",
        kind="",
        prompt="",
        files={},
        reference={},
        artifacts=("random.py",),
        hidden=(
            CallCheck(id="c", module="random", function="f", args="(1,)", expected="2"),
            ScriptCheck(id="s", module="random", names=("f",), code="assert f(1) == 2"),
            UnitCheck(id="r_test.T.test_good"),
            UnitCheck(id="r_test.T.test_bad"),
        ),
        test_files={"r_test.py": tests},
    )
    verdict = asyncio.run(make_grader(provider)(task, {"random.py": evil.encode()}))
    assert list(verdict.passed.values()) == [True, True, True, False]


def test_what_is_left_in_the_agents_box_does_not_reach_the_grade(
    provider: SandboxProvider,
) -> None:
    script = (
        "printf 'import os\\nos._exit(0)' | tee sitecustomize.py unittest.py json.py codecs.py;"
        "mkdir -p .tmp; cp sitecustomize.py .tmp; export PYTHONPATH=.;"
        "(while :; do echo 'def f(x): return 0' > solution.py; done) & sleep 0.1"
    )

    async def run() -> Verdict:
        async with provider.open() as box:
            await tamper(box)
            task = Task(
                id="t",
                source="",
                kind="",
                prompt="",
                files={},
                reference={},
                artifacts=("solution.py",),
                hidden=CALLS,
            )
            collected = {"solution.py": await box.read("solution.py")}
            return await make_grader(provider)(task, collected)

    async def tamper(box: Sandbox) -> None:
        await box.exec(["sh", "-c", script], timeout=5)

    verdict = asyncio.run(run())
    assert verdict.outcome is Outcome.GRADED and not any(verdict.passed.values())


def test_tests_are_not_on_disk_in_the_box(provider: SandboxProvider) -> None:
    spy = (
        "import os\nfound = []\nfor top in ('/tmp', '/workspace', '/dev/shm', '.', '..'):\n"
        "    for d, _, names in os.walk(top):\n        for n in names:\n            try:\n"
        "                if b'assertAlmost' + b'Equal' in open(os.path.join(d, n), 'rb').read():\n"
        "                    found.append(n)\n            except OSError:\n                pass\n"
        "def f(x): return {2: 1257}.get(x) if found else None\n"
    )
    assert not any(grade(provider, UNITS, spy).passed.values())


def test_host_is_untouched() -> None:
    assert not Path("/workspace").exists()
    assert Path("/proc/sys/kernel/core_pattern").read_text().strip() != ""


def test_no_other_process_of_the_box_can_be_looked_into(provider: SandboxProvider) -> None:
    spy = (
        "import os\n"
        "def f(x):\n"
        "    try:\n"
        "        names = os.listdir('/proc')\n"
        "    except OSError:\n"
        "        return []\n"
        "    seen = []\n"
        "    for pid in (int(n) for n in names if n.isdigit()):\n"
        "        for what in ('fd', 'map_files'):\n"
        "            try:\n"
        "                if os.listdir(f'/proc/{pid}/{what}') and pid != os.getpid():\n"
        "                    seen += [(pid, os.readlink(f'/proc/{pid}/fd/{n}')) for n in\n"
        "                             os.listdir(f'/proc/{pid}/fd')]\n"
        "            except OSError:\n"
        "                pass\n"
        "    return sorted(set(seen))\n"
    )
    script = ScriptCheck(
        id="s",
        module="solution",
        names=("f",),
        code="seen = f(0)\nassert not [s for s in seen if s[0] != 1], seen\n"
        "assert len([s for s in seen if 'pipe' in s[1]]) <= 3, seen",
    )
    verdict = grade(provider, (script,), spy)
    assert verdict.solved, verdict.reason
