"""Grades an exported task where palestra is not: run by its ``tests/test.sh``, with Python alone.

Weaker than the trusted grader: each check has a process of its own, but tests and work share it.
Writes 1 or 0 to ``/logs/verifier/reward.txt``. Tests of pytest need pytest in the image.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

TESTS, REWARD = Path(__file__).parent, Path("/logs/verifier/reward.txt")
SECONDS = 60

CALL = """
import ast, importlib, json, math, sys

def same(wanted, got):
    if {type(wanted), type(got)} == {int, float}:
        return wanted == got
    if type(wanted) is not type(got):
        return False
    if isinstance(wanted, float):
        return math.isclose(wanted, got, rel_tol=1e-9)
    if isinstance(wanted, (list, tuple)):
        return len(wanted) == len(got) and all(map(same, wanted, got))
    if isinstance(wanted, dict):
        return wanted.keys() == got.keys() and all(same(wanted[key], got[key]) for key in wanted)
    return wanted == got

check = json.load(sys.stdin)
target = importlib.import_module(check["module"])
for name in check["function"].split("."):
    target = getattr(target, name.removesuffix("()"))
    if name.endswith("()"):
        target = target()
assert same(ast.literal_eval(check["expected"]), target(*ast.literal_eval(check["args"])))
"""
SCRIPT = """
import importlib, json, sys
check = json.load(sys.stdin)
module = importlib.import_module(check["module"])
space = {name: getattr(module, name) for name in check["names"]}
exec(compile(check["code"], "<check>", "exec"), space)
"""
COMMANDS = {
    "call": ("-c", CALL),
    "script": ("-c", SCRIPT),
    "unit": ("-m", "unittest"),
    "suite": ("-m", "pytest", "-q", "-p", "no:cacheprovider"),
}


def command(check: dict[str, object]) -> list[str]:
    """The words that end with exit code 0 when a check passes; it reads the check from its standard
    input, as words may not be as long as arguments are."""
    kind = str(check["type"])
    named = [str(check["id"])] if kind in ("unit", "suite") else []
    return [sys.executable, *COMMANDS[kind], *named]


def passed(check: dict[str, object]) -> bool:
    """Whether a check passes in the current folder."""
    place = {**os.environ, "PYTHONPATH": f"{Path.cwd()}:{Path.cwd() / 'src'}"}
    try:
        ended = subprocess.run(
            command(check),
            input=json.dumps(check).encode(),
            env=place,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return ended.returncode == 0


def main() -> None:
    """Lay the tests over the work and run every check."""
    task = json.loads((TESTS / "task.json").read_text(encoding="utf-8"))
    for path, text in task["test_files"].items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text, encoding="utf-8")
    good = all(passed(check) for check in task["hidden"])
    REWARD.parent.mkdir(parents=True, exist_ok=True)
    REWARD.write_text(f"{int(good)}\n")


if __name__ == "__main__":
    main()
