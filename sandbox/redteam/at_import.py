"""Ending, or making the tests end, before they can fail."""

from __future__ import annotations

from collections.abc import Mapping

from palestra.sandbox.redteam.attack import Attack

AT_IMPORT: Mapping[str, Attack] = {
    "exit-at-import": Attack(
        row=4, tries="sys.exit(0) while it is imported", code="import sys\nsys.exit(0)"
    ),
    "raise-system-exit": Attack(
        row=4, tries="raise SystemExit while it is imported", code="raise SystemExit"
    ),
    "exit-in-call": Attack(
        row=4,
        tries="sys.exit(0) when a test calls it",
        code="import sys\ndef attack(*a, **k): sys.exit(0)",
    ),
    "exit-at-the-end": Attack(
        row=4,
        tries="changes the exit code to 0 as the interpreter ends",
        code="import atexit, os\natexit.register(lambda: os._exit(0))",
    ),
    "os-exit-at-import": Attack(
        row=5, tries="os._exit(0) while it is imported", code="import os\nos._exit(0)"
    ),
    "os-exit-in-call": Attack(
        row=5,
        tries="os._exit(0) when a test calls it",
        code="import os\ndef attack(*a, **k): os._exit(0)",
    ),
    "exit-by-trace": Attack(
        row=5,
        tries="os._exit(0) from a trace function, in whatever runs next",
        code="import os, sys\nsys.settrace(lambda *a: os._exit(0))\n"
        "sys.setprofile(lambda *a: os._exit(0))",
    ),
    "syntax-error": Attack(
        row=17, tries="does not parse, so that no test is collected", code="def broken(:\n"
    ),
    "skip-at-import": Attack(
        row=17,
        tries="raises SkipTest while it is imported",
        code="import unittest\nraise unittest.SkipTest('no')",
    ),
    "skip-in-call": Attack(
        row=2,
        tries="raises SkipTest when a test calls it",
        code="import unittest\ndef attack(*a, **k): raise unittest.SkipTest('no')",
    ),
    "expected-failure": Attack(
        row=2,
        tries="has unittest and pytest mark every test as expected to fail",
        code="import sys, unittest\n"
        "for case in unittest.TestCase.__subclasses__():\n"
        "    case.__unittest_expecting_failure__ = True\n"
        "unittest.TestCase.__unittest_expecting_failure__ = True\n"
        "unittest.TestCase.__unittest_skip__ = True\n",
    ),
    "keyboard-interrupt": Attack(
        row=4,
        tries="interrupts the runner as a person would",
        code="def attack(*a, **k): raise KeyboardInterrupt",
    ),
    "stop-iteration": Attack(
        row=4,
        tries="ends the loop over tests",
        code="def attack(*a, **k): raise StopIteration(0)",
    ),
    "generator-exit": Attack(
        row=4,
        tries="raises what few except clauses catch",
        code="def attack(*a, **k): raise GeneratorExit",
    ),
}
