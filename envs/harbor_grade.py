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
import ast, importlib, sys
module, function, args, expected = sys.argv[1:]
target = importlib.import_module(module)
for name in function.split("."):
    target = getattr(target, name)
got, wanted = target(*ast.literal_eval(args)), ast.literal_eval(expected)
near = isinstance(wanted, float) and abs(got - wanted) <= 1e-6 * max(1.0, abs(wanted))
assert type(got) is type(wanted) and (got == wanted or near)
"""
SCRIPT = """
import importlib, sys
module, code, *names = sys.argv[1:]
space = {name: getattr(importlib.import_module(module), name) for name in names}
exec(compile(code, "<check>", "exec"), space)
"""


def command(check: dict[str, object]) -> list[str]:
    """The words that end with exit code 0 when a check passes."""
    python = [sys.executable, "-c"]
    kind = check["type"]
    if kind == "call":
        words = [str(check[name]) for name in ("module", "function", "args", "expected")]
        return [*python, CALL, *words]
    if kind == "script":
        names = check["names"]
        assert isinstance(names, list)
        return [*python, SCRIPT, str(check["module"]), str(check["code"]), *names]
    if kind == "unit":
        return [sys.executable, "-m", "unittest", str(check["id"])]
    return [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(check["id"])]


def passed(check: dict[str, object]) -> bool:
    """Whether a check passes in the current folder."""
    place = {**os.environ, "PYTHONPATH": f"{Path.cwd()}:{Path.cwd() / 'src'}"}
    try:
        ended = subprocess.run(command(check), env=place, timeout=SECONDS, check=False)
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
