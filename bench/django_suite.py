"""Django's own tests by our runner, and by Django's: a row as SWE-bench has them, made here.

    .venv/bin/python bench/django_suite.py SOURCE PACKAGES [LABEL ...]

SOURCE is Django's unpacked source distribution, PACKAGES a folder with what it needs installed in
it (``pip install --target PACKAGES asgiref sqlparse``). Django's runner tells which tests pass; the
row names them as its log does, and its bug is a line of ``capfirst``. Writes
bench/results/django_suite.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from report import machine_of, write_report

from palestra.envs.files import work_of
from palestra.envs.sources import load
from palestra.rl.types import Task
from palestra.sandbox import auto
from palestra.sandbox.checks import Fresh, job_of, run_checks

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "bench" / "results" / "django_suite.json"
LABELS = ["lookup", "model_forms", "test_utils", "aggregation", "httpwrappers", "transactions"]
FIXED = "def capfirst(x):\n"
BROKEN = f"{FIXED}    return x\n"
CHECK_S = 20.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("packages", type=Path)
    parser.add_argument("labels", nargs="*", default=LABELS)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="palestra-django-") as name:
        top = Path(name)
        shutil.copytree(args.source, top / "repo", ignore=shutil.ignore_patterns("docs"))
        for package in ("asgiref", "sqlparse"):
            shutil.copytree(args.packages / package, top / "repo" / package)
        names = passing(top / "repo", args.labels)
        (top / "rows.json").write_text(json.dumps([row_of(top / "repo", args.labels, names)]))
        beside = '[repositories."django/django"]\npath = "repo"\n'
        (top / "swebench.toml").write_text(beside)
        found = asyncio.run(graded(top))
    named, good, bad = found
    figures = {
        "passed lines in the log of Django's runner": figure(len(names), "lines"),
        "tests that they name": figure(named, "tests"),
        "of these pass in ours": figure(good, "tests", "all", good == named),
        "with the bug": figure(bad, "tests", "fewer", bad < named),
    }
    write_report(RESULT, figures, "bench/django_suite.py", machine_of())


def figure(value: int, unit: str, target: str = "", met: bool | None = None) -> dict[str, object]:
    return {"value": value, "unit": unit, "target": target, "met": met}


def passing(repo: Path, labels: list[str]) -> list[str]:
    """The tests that Django's runner logs as passed, by the names in the log."""
    # Not of our virtual environment: boxes do not have what is installed there.
    python = Path(sys.base_prefix, "bin", "python3")
    ended = subprocess.run(
        [python, "runtests.py", "--parallel", "1", "-v", "2", *labels],
        cwd=repo / "tests",
        env={**os.environ, "PYTHONPATH": str(repo)},
        capture_output=True,
        text=True,
        check=False,  # some of them may fail on this machine
    )
    lines = ended.stderr.splitlines()
    return [line.removesuffix(" ... ok") for line in lines if line.endswith(" ... ok")]


def row_of(repo: Path, labels: list[str], names: list[str]) -> dict[str, object]:
    """A row whose test patch changes every test file of the labels."""

    def git(*words: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@localhost"]
        words = ("git", *who, *words)
        return subprocess.run(words, cwd=repo, check=True, capture_output=True, text=True).stdout

    code = repo / "django/utils/text.py"
    fixed = code.read_text()
    assert FIXED in fixed
    code.write_text(fixed.replace(FIXED, BROKEN))
    tests = [path for label in labels for path in (repo / "tests" / label).rglob("*.py")]
    texts = {path: path.read_text() for path in tests}
    for path, text in texts.items():
        path.write_text(f"{text}# old\n")
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "broken"]):
        git(*words)
    code.write_text(fixed)
    patch = git("diff")
    git("checkout", "-q", ".")
    for path, text in texts.items():
        path.write_text(text)
    return {
        "instance_id": "django__django-1",
        "repo": "django/django",
        "base_commit": "HEAD",
        "problem_statement": "capfirst does nothing",
        "patch": patch,
        "test_patch": git("diff"),
        "FAIL_TO_PASS": names[:1],
        "PASS_TO_PASS": names[1:],
    }


async def graded(top: Path) -> tuple[int, int, int]:
    """How many tests the row has, and how many of them pass with its patch and without."""
    boxes = auto.choose(root=top / "boxes")
    source = f"swebench:{top / 'rows.json'}"
    tasks = await load(source, run_checks=run_checks, provider=boxes, seed=0)
    assert not tasks.skipped, tasks.skipped
    task = tasks.tasks[0]
    good = await passed(task, task.reference, Fresh(boxes))
    return len(task.hidden), good, await passed(task, {}, Fresh(boxes))


async def passed(task: Task, files: Mapping[str, str], boxes: Fresh) -> int:
    """How many tests pass over the work that wrote these files; the others are printed."""
    job = job_of(task, work_of(task, files))
    assert not isinstance(job, str), job
    [results] = await boxes.run([job], timeout=600.0, check_s=CHECK_S)
    for result in results:
        if not result.passed:
            print(f"  {result.id}: {result.got.splitlines()[:1]}", flush=True)
    return sum(result.passed for result in results)


if __name__ == "__main__":
    main()
