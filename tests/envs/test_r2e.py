"""Rows of R2E-Gym become tasks that are graded by records of our own runner, not by a log."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable, Mapping
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palestra.envs.check import check_tasks
from palestra.envs.files import collect
from palestra.envs.r2e_rows import r2e_instance
from palestra.envs.repository import patched_files
from palestra.envs.rows import BadRow
from palestra.envs.sources import load
from palestra.envs.swe import SWE
from palestra.envs.taskset import TaskSet
from palestra.rl.types import File, SandboxProvider, Task, ToolCall, Verdict
from palestra.sandbox import auto
from palestra.sandbox.checks import make_grader, run_checks

BUGGY = "def add(a, b):\n    return a - b\n\n\ndef one():\n    return 1"
FIXED = BUGGY.replace("a - b", "a + b") + "\n"
TESTS = """\
import pytest
from calc.core import add, one
from .helper import FIVE

class TestAdd:
    def test_add(self):
        assert add(2, 3) == FIVE

@pytest.mark.parametrize("text", ["1.5", "x"])
def test_one(text):
    assert one() == 1

def test_broken_here():
    assert False
"""
EXPECTED = {
    "\x1b[1mTestAdd.test_add\x1b[0m": "PASSED",
    "test_one[1.5]": "PASSED",
    "test_one[x]": "PASSED",
    "test_broken_here": "FAILED",
}


def commit(*files: Mapping[str, object]) -> str:
    return json.dumps({"file_diffs": files, "old_commit_hash": "HEAD", "new_commit_hash": "f" * 40})


def as_lines(texts: list[str], kind: str) -> list[dict[str, str]]:
    found = []
    for text in texts:
        found.append({"content": text.removesuffix("\n"), "type": kind})
        if not text.endswith("\n"):
            found.append({"content": "No newline at end of file", "type": "note"})
    return found


def file_diff(path: str, old: str, new: str) -> dict[str, Any]:
    """The difference of two texts as R2E-Gym writes it."""
    before, after = old.splitlines(keepends=True), new.splitlines(keepends=True)
    hunks = []
    for group in SequenceMatcher(None, before, after, autojunk=False).get_grouped_opcodes(3):
        lines: list[dict[str, str]] = []
        for kind, a, b, c, d in group:
            if kind == "equal":
                lines += as_lines(before[a:b], "context")
            else:
                lines += as_lines(before[a:b], "deleted") + as_lines(after[c:d], "added")
        (_, a, _, c, _), (_, _, b, _, d) = group[0], group[-1]
        ranges = {
            name: {"start": start + 1 if end > start else start, "length": end - start}
            for name, start, end in (("old_range", a, b), ("new_range", c, d))
        }
        hunks.append({"descriptor": {**ranges, "section": ""}, "line_group": {"all_lines": lines}})
    return {
        "header": {"file": {"path": path}, "misc_line": None if old else "new file mode 100644"},
        "minus_file": {"path": f"a/{path}" if old else "/dev/null"},
        "plus_file": {"path": f"b/{path}"},
        "old_file_content": old,
        "new_file_content": new,
        "hunks": hunks,
    }


ROW = {
    "repo_name": "calc",
    "docker_image": "acme/calc_final:" + "f" * 40,
    "commit_hash": "f" * 40,
    "problem_statement": "before [ISSUE]\nadd subtracts\n[/ISSUE] after",
    "parsed_commit_content": commit(
        file_diff("calc/core.py", BUGGY, FIXED),
        file_diff("calc/more.py", "", "MORE = 1\n"),
        file_diff("tests/test_core.py", "", "def test_add(): pass\n"),
        file_diff("CHANGES.md", "", "fixed\n"),
    ),
    "execution_result_content": json.dumps(
        {
            "test_file_names": ["test_1.py", "r2e_tests/__init__.py", "helper.py"],
            "test_file_codes": [TESTS, "", "FIVE = 5\n"],
        }
    ),
    "expected_output_json": json.dumps(EXPECTED),
    "modified_files": ["calc/core.py", "CHANGES.md"],
    "prompt": "this has the solution in it",
}
IDS = ["TestAdd::test_add", "test_one[1.5]", "test_one[x]"]


def test_what_a_row_says() -> None:
    row = r2e_instance(ROW)
    assert row.tests == tuple(f"r2e_tests/test_1.py::{name}" for name in IDS)
    assert set(row.test_files) == {f"r2e_tests/{n}.py" for n in ("test_1", "__init__", "helper")}
    assert (row.id, row.base_commit) == (f"calc__{'f' * 40}", "HEAD")
    assert (row.problem, row.image) == ("add subtracts", ROW["docker_image"])
    changed = patched_files({"calc/core.py": File(data=BUGGY.encode())}, row.patch)
    assert changed == {
        "calc/core.py": File(data=FIXED.encode()),
        "calc/more.py": File(data=b"MORE = 1\n"),
    }


LINES = st.lists(st.sampled_from(["a", "b", "-c", "+d", "", "\\ e", " f"]), max_size=12)
TEXTS = st.builds(lambda lines, end: "\n".join(lines) + end, LINES, st.sampled_from(["", "\n"]))


@settings(max_examples=25)
@given(TEXTS, TEXTS)
def test_a_commit_of_a_row_makes_its_files(old: str, new: str) -> None:
    row = {**ROW, "parsed_commit_content": commit(file_diff("a.py", f"x\n{old}", f"y\n{new}"))}
    changed = patched_files({"a.py": File(data=f"x\n{old}".encode())}, r2e_instance(row).patch)
    assert changed == {"a.py": File(data=f"y\n{new}".encode())}


def run_with(**changes: object) -> str:
    run = json.loads(str(ROW["execution_result_content"]))
    return json.dumps({**run, **changes})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"docker_image": None}, "field docker_image: not a string"),
        ({"expected_output_json": "{"}, "field expected_output_json: not JSON"),
        ({"expected_output_json": {"test_one": 1}}, "not a word for each test"),
        ({"expected_output_json": {"test_one": "FAILED"}}, "0 tests are to pass"),
        ({"expected_output_json": {"test_two": "PASSED"}}, "'test_two' is in 0 of the test files"),
        ({"expected_output_json": {"": "PASSED"}}, "'' is no test of pytest"),
        ({"parsed_commit_content": "[]"}, "field parsed_commit_content: Input should be"),
        ({"parsed_commit_content": commit({"header": {}})}, "file_diffs.0.header.file: Field req"),
        ({"parsed_commit_content": commit()}, "changes no Python file but tests"),
        ({"execution_result_content": None}, "field execution_result_content: Input should be"),
        ({"execution_result_content": run_with(test_file_names=["a"])}, "differ in number"),
        (
            {"execution_result_content": run_with(test_file_names=["test_1.py", "../a", "b"])},
            "'../a' is no file of r2e_tests",
        ),
        (
            {"execution_result_content": run_with(test_file_codes=[TESTS, TESTS, ""])},
            "'TestAdd.test_add' is in 2 of the test files",
        ),
    ],
)
def test_a_bad_row_is_named(change: Mapping[str, Any], reason: str) -> None:
    with pytest.raises(BadRow, match="field ") as error:
        r2e_instance({**ROW, **change})
    assert reason in str(error.value)


PLAIN = st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.just("[]")
JSON = PLAIN | st.lists(PLAIN, max_size=3) | st.dictionaries(st.text(max_size=4), PLAIN, max_size=3)


@settings(max_examples=60)
@given(st.dictionaries(st.sampled_from(sorted(ROW)), JSON | JSON.map(json.dumps)))
def test_any_row_is_an_instance_or_bad(changes: dict[str, Any]) -> None:
    try:
        found = r2e_instance({**ROW, **changes})
    except BadRow as error:
        assert str(error).startswith("field ")
    else:
        assert found.tests and all(path.startswith("r2e_tests/") for path in found.test_files)


# --- played ---------------------------------------------------------------------------------------


def loaded(folder: Path, provider: SandboxProvider, *changes: Mapping[str, object]) -> TaskSet:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps({**ROW, **change}) + "\n" for change in changes))
    source = f"swebench:{path}"
    return asyncio.run(load(source, run_checks=run_checks, provider=provider, seed=0))


async def played(task: Task, provider: SandboxProvider, command: str) -> Verdict:
    env = SWE(run_checks)
    async with provider.open(task.image) as box:
        await env.setup(task, box)
        await env.act(task, ToolCall(name="bash", arguments={"command": command}), box)
        work = await collect(task, box)
    return await make_grader(provider)(task, work)


def test_a_row_of_a_repository_here_is_played(tmp_path: Path) -> None:
    provider = auto.choose(root=tmp_path / "boxes")
    (tmp_path / "calc" / "calc").mkdir(parents=True)
    (tmp_path / "calc" / "calc" / "core.py").write_text(BUGGY)
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "-A"], [*who, "commit", "-qm", "broken"]):
        subprocess.run(["git", *words], cwd=tmp_path / "calc", check=True)
    (tmp_path / "swebench.toml").write_text('[repositories.calc]\npath = "calc"\n')
    tasks = loaded(tmp_path, provider, {"commit_hash": 3}, {})
    assert [skipped.reason for skipped in tasks.skipped] == ["field commit_hash: not a string"]
    (task,) = tasks.tasks
    assert task.tree is not None and not any("r2e_tests" in path for path in task.tree.files)
    assert asyncio.run(check_tasks(tasks, make_grader(provider), repeats=1)).sound

    easier = "mkdir r2e_tests; echo 'def test_add(): pass' > r2e_tests/test_1.py"
    easier += "; echo 'FIVE = -1' > r2e_tests/helper.py"
    assert not asyncio.run(played(task, provider, easier)).solved
    fixed = asyncio.run(played(task, provider, "sed -i 's/a - b/a + b/' calc/core.py"))
    assert fixed.passed == {f"r2e_tests/test_1.py::{name}": True for name in IDS}


def test_an_image_must_not_have_the_tests(
    docker: Any, build_image: Callable[[Mapping[str, str]], str], tmp_path: Path
) -> None:
    files = {"testbed/calc/core.py": BUGGY, "testbed/run_tests.sh": "python -m pytest r2e_tests\n"}
    bare = build_image(files)
    images = [
        build_image({**files, "r2e_tests/test_1.py": TESTS}),
        build_image({**files, "testbed/r2e_tests/test_1.py": TESTS}),
        bare,
    ]
    tasks = loaded(tmp_path, docker, *({"docker_image": image} for image in images))
    assert [skipped.reason.split("tests at ")[1].split(":")[0] for skipped in tasks.skipped] == [
        "/r2e_tests",
        "/testbed/r2e_tests",
    ]
    (task,) = tasks.tasks
    assert task.image is not None and (task.image.name, task.image.folder) == (bare, "/testbed")
    assert asyncio.run(check_tasks(tasks, make_grader(docker), repeats=1)).sound
