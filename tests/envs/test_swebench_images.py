"""Rows that are played in containers: what lies in their image is the repository."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from palestra.envs.check import check_tasks
from palestra.envs.files import collect
from palestra.envs.sources import load
from palestra.envs.swe import SWE
from palestra.envs.swebench_rows import instance
from palestra.envs.swebench_start import Beside, image_of
from palestra.envs.task_json import task_from_json, task_to_json
from palestra.envs.taskset import TaskSet
from palestra.rl.types import SandboxProvider, Task, ToolCall, Verdict
from palestra.sandbox import auto
from palestra.sandbox.checks import make_grader, run_checks

# The package lies where only the image's own setting finds it, as that of Matplotlib does.
FILES = {
    "testbed/lib/calc.py": "def add(a, b):\n    return a - b\n",
    "testbed/tests/test_calc.py": "",
    "testbed/.git/config": "secret history",
    "usr/lib/python3/dist-packages/calc.pth": "/testbed/lib\n",
}
CODE = """\
diff --git a/lib/calc.py b/lib/calc.py
--- a/lib/calc.py
+++ b/lib/calc.py
@@ -1,2 +1,2 @@
 def add(a, b):
-    return a - b
+    return a + b
"""
TESTS = """\
diff --git a/tests/test_calc.py b/tests/test_calc.py
--- a/tests/test_calc.py
+++ b/tests/test_calc.py
@@ -0,0 +1,4 @@
+from calc import add
+
+def test_add():
+    assert add(2, 3) == 5
"""
ROW = {
    "instance_id": "acme__Calc-1",
    "repo": "acme/calc",
    "base_commit": "abc",
    "problem_statement": "add subtracts",
    "patch": CODE,
    "test_patch": TESTS,
    "FAIL_TO_PASS": ["tests/test_calc.py::test_add"],
    "PASS_TO_PASS": "[]",
}


def test_the_image_of_a_row() -> None:
    beside = Beside.model_validate({"repositories": {"acme/local": {"path": "x"}}})
    published = image_of(instance(ROW), beside)
    assert published is not None and published.folder == "/testbed"
    assert published.name == "swebench/sweb.eval.x86_64.acme_1776_calc-1:latest"
    assert published.env["PATH"].startswith("/opt/miniconda3/envs/testbed/bin:")
    for field in ("image", "image_name", "docker_image"):
        named = image_of(instance({**ROW, field: "acme/one:2"}), beside)
        assert named is not None and named.name == "acme/one:2"
    assert image_of(instance({**ROW, "repo": "acme/local"}), beside) is None


def loaded(folder: Path, provider: SandboxProvider, **changes: str) -> TaskSet:
    path = folder / "rows.json"
    path.write_text(json.dumps([{**ROW, **changes}]))
    source = f"swebench:{path}"
    return asyncio.run(load(source, run_checks=run_checks, provider=provider, seed=0))


def test_boxes_that_are_made_of_no_image_are_refused(tmp_path: Path) -> None:
    (skipped,) = loaded(tmp_path, auto.choose(root=tmp_path / "boxes")).skipped
    assert "boxes are made of none" in skipped.reason and "backend=docker" in skipped.reason


@pytest.fixture(scope="module")
def image(build_image: Callable[[Mapping[str, str]], str]) -> str:
    """The base image with a repository in it."""
    return build_image(FILES)


def test_a_row_is_played_and_graded_in_its_image(docker: Any, image: str, tmp_path: Path) -> None:
    tasks = loaded(tmp_path, docker, image_name=image)
    (task,) = tasks.tasks
    assert task.tree is not None and task.image is not None
    assert task.tree.files[".git/config"].data != b"secret history"
    assert task_from_json(task_to_json(task)).image == task.image
    assert asyncio.run(check_tasks(tasks, make_grader(docker))).sound

    answers, verdict = asyncio.run(played(task, docker, "pwd; python3 -c 'import calc; calc.add'"))
    assert answers == ["/testbed"] and not verdict.solved
    _, verdict = asyncio.run(played(task, docker, "sed -i 's/a - b/a + b/' lib/calc.py"))
    assert verdict.solved, verdict.reason


async def played(task: Task, docker: Any, *commands: str) -> tuple[list[str], Verdict]:
    env = SWE(run_checks)
    async with docker.open(task.image) as box:
        await env.setup(task, box)
        calls = [ToolCall(name="bash", arguments={"command": command}) for command in commands]
        answers = [(await env.act(task, call, box)).text for call in calls]
        work = await collect(task, box)
    return answers, await make_grader(docker)(task, work)


def test_a_missing_image_is_a_bad_row(docker: Any, tmp_path: Path) -> None:
    (skipped,) = loaded(tmp_path, docker, image="palestra-no-such-image:0").skipped
    assert "docker pull palestra-no-such-image:0" in skipped.reason
