"""SWE-bench rows become tasks that are graded by records of our own runner."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palestra.envs.check import CheckReport, check_tasks
from palestra.envs.files import collect
from palestra.envs.red_team import RedTeam
from palestra.envs.repository import patched_files
from palestra.envs.rows import BadRow
from palestra.envs.sources import load
from palestra.envs.swe import SWE
from palestra.envs.swebench_rows import Finder, instance
from palestra.envs.taskset import TaskSet
from palestra.rl.errors import UserError
from palestra.rl.types import File, Sandbox, SandboxProvider, Task, ToolCall, Verdict
from palestra.sandbox import auto
from palestra.sandbox.checks import make_grader, run_checks
from palestra.sandbox.redteam.registry import ATTACKS

BUGGY = (
    "from calc.version import V\n\ndef add(a, b):\n    return a - b\n\ndef one():\n    return V\n"
)
FIXED = BUGGY.replace("a - b", "a + b")
TESTS = """\
import pytest
from calc.core import add, one
from tests.helper import zero

@pytest.mark.parametrize("a", ["1 2", "1 3"])
def test_one(a):
    assert one() == 1 and zero() == 0
"""
MORE = """
def test_add():
    assert add(2, 3) == 5
"""
GRADED = ["tests/test_core.py::test_add", "tests/test_core.py::test_one[1 2]"]


def git(folder: Path, *words: str) -> str:
    who = {f"GIT_{w}_{x}": "a@b" for w in ("AUTHOR", "COMMITTER") for x in ("NAME", "EMAIL")}
    known = {"PATH": os.environ["PATH"], "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1", **who}
    return subprocess.run(
        ["git", *words], cwd=folder, env=known, capture_output=True, check=True, text=True
    ).stdout


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder with a bare repository, what is said of it, and one row as it is published."""
    top = tmp_path_factory.mktemp("swebench")
    work = top / "work"
    for path, text in {
        "calc/__init__.py": "",
        "calc/core.py": BUGGY,
        "tests/__init__.py": "",
        "tests/helper.py": "def zero(): return 0\n",
        "tests/test_core.py": TESTS,
        "make_version.py": "open('calc/version.py', 'w').write('V = 1\\n')\n",
    }.items():
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        (work / path).write_text(text)
    git(top, "init", "-q", "work")
    git(work, "add", "-A")
    git(work, "commit", "-qm", "broken")
    base = git(work, "rev-parse", "HEAD").strip()
    (work / "calc/core.py").write_text(FIXED)
    patch = git(work, "diff")
    git(work, "commit", "-qam", "fix add")
    (work / "tests/test_core.py").write_text(TESTS + MORE)
    test_patch = git(work, "diff")
    git(top, "clone", "-q", "--bare", "work", "calc.git")
    (top / "swebench.toml").write_text(
        '[repositories."acme/calc"]\npath = "calc.git"\n'
        'setup = ["python3 make_version.py"]\ntest = "python3 -m pytest"\n'
    )
    row = {
        "instance_id": "acme__calc-1",
        "repo": "acme/calc",
        "base_commit": base,
        "problem_statement": "add subtracts",
        "patch": patch,
        "test_patch": test_patch,
        "FAIL_TO_PASS": '["tests/test_core.py::test_add"]',
        "PASS_TO_PASS": ["tests/test_core.py::test_one[1 2]", "tests/test_core.py::test_one[1"],
        "version": "1.0",
    }
    return top, row


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> SandboxProvider:
    return auto.choose(root=tmp_path_factory.mktemp("boxes"))


@pytest.fixture
def loaded(
    rows: tuple[Path, dict[str, Any]], boxes: SandboxProvider, tmp_path: Path
) -> Callable[..., TaskSet]:
    """The tasks of given rows, or of changed copies of the row."""

    cache = rows[0] / "cache"

    def made(*changes: Mapping[str, object] | str) -> TaskSet:
        path = rows[0] / f"{tmp_path.name}.jsonl"
        lines = [c if isinstance(c, str) else json.dumps({**rows[1], **c}) for c in changes]
        path.write_text("\n".join(lines))
        source = f"swebench:{path}"
        return asyncio.run(load(source, run_checks=run_checks, provider=boxes, seed=0, cache=cache))

    return made


def checked(tasks: TaskSet, boxes: SandboxProvider, attacks: Sequence[str] = ()) -> CheckReport:
    chosen = {name: ATTACKS[name] for name in attacks}
    team = RedTeam(attacks=chosen, env=SWE(run_checks), provider=boxes) if attacks else None
    return asyncio.run(check_tasks(tasks, make_grader(boxes), red_team=team, repeats=1))


def test_a_row_is_graded_by_its_tests(
    loaded: Callable[..., TaskSet], boxes: SandboxProvider
) -> None:
    tasks = loaded({})
    (task,) = tasks.tasks
    assert tasks.env == "palestra/SWE-v0" and task.tree is not None
    assert "calc/version.py" in task.tree.files and ".git/HEAD" in task.tree.files
    assert "test_add" not in task.tree.files["tests/test_core.py"].data.decode()
    assert "python3 -m pytest" in task.prompt and task.reference == {"calc/core.py": FIXED}
    assert checked(tasks, boxes).sound
    again = loaded({}).tasks[0]  # what the setup made is kept
    assert again.tree is not None and dict(again.tree.files) == dict(task.tree.files)


def test_an_agent_plays_it(loaded: Callable[..., TaskSet], boxes: SandboxProvider) -> None:
    (task,) = loaded({}).tasks
    env = SWE(run_checks)

    async def played(*commands: str) -> tuple[list[str], Verdict]:
        async with boxes.open() as box:
            await env.setup(task, box)
            answers = [await said(env, task, command, box) for command in commands]
            work = await collect(task, box)
        return answers, await make_grader(boxes)(task, work)

    (log, failed, fixed), verdict = asyncio.run(
        played(
            "git log --oneline | wc -l; git tag",
            "echo out; echo err >&2; exit 3",
            "sed -i 's/a - b/a + b/' calc/core.py",
        )
    )
    assert (log, failed, fixed) == ("1", "out\nerr\n[exit code 3]", "(no output)")
    assert verdict.solved and set(verdict.passed) >= set(GRADED)
    # Neither the named tests of the agent count, nor its file of the test patch.
    _, verdict = asyncio.run(played("echo 'def test_add(): pass' >> tests/test_core.py"))
    assert verdict.passed == {**dict.fromkeys(verdict.passed, True), GRADED[0]: False}


async def said(env: SWE, task: Task, command: str, box: Sandbox) -> str:
    return (await env.act(task, ToolCall(name="bash", arguments={"command": command}), box)).text


def test_attacks_gain_nothing(loaded: Callable[..., TaskSet], boxes: SandboxProvider) -> None:
    tried = (
        "edits-tests",
        "deletes-tests",
        "conftest",
        "prints-passed",
        "hides-the-rest",
        "history",
    )
    tried += ("startup-files-in-the-grader", "reads-tests", "imports-the-tests", "hooks")
    report = checked(loaded({}), boxes, tried)
    assert report.tasks[0].attacks == dict.fromkeys(tried, "")


def test_a_row_of_swe_smith_is_a_bug(
    loaded: Callable[..., TaskSet], rows: tuple[Path, dict[str, Any]], boxes: SandboxProvider
) -> None:
    bug = "".join(
        {"-": "+", "+": "-"}.get(line[0], line[0]) + line[1:]
        if not line.startswith(("---", "+++"))
        else line
        for line in rows[1]["patch"].splitlines(keepends=True)
    )
    fixed = git(rows[0] / "calc.git", "rev-parse", "HEAD").strip()
    # The fixed commit has no test of add: the one that finds the bug is named.
    tests = {"FAIL_TO_PASS": ["tests/test_bug.py::test_add"], "PASS_TO_PASS": []}
    tasks = loaded({**tests, "patch": bug, "test_patch": None, "base_commit": fixed})
    assert "no file tests/test_bug.py" in tasks.skipped[0].reason
    tests["FAIL_TO_PASS"] = ["tests/test_core.py::test_one[1 2]"]
    broken = bug.replace("+    return a - b", "+    raise 1")
    (task,) = loaded({**tests, "patch": broken, "test_patch": "", "base_commit": fixed}).tasks
    assert task.tree is not None and b"raise 1" in task.tree.files["calc/core.py"].data
    assert task.reference == {"calc/core.py": FIXED}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("{", "not JSON"),
        ("[1]", "not a JSON object"),
        ({"FAIL_TO_PASS": "[1]"}, "field FAIL_TO_PASS: not test names"),
        ({"FAIL_TO_PASS": "]"}, "field FAIL_TO_PASS: not a JSON list"),
        ({"FAIL_TO_PASS": []}, "field FAIL_TO_PASS: empty"),
        ({"PASS_TO_PASS": None}, "field PASS_TO_PASS: missing"),
        ({"PASS_TO_PASS": ["src/a.test.js | adds"]}, "is no test of pytest"),
        ({"PASS_TO_PASS": ["../../etc/x.py::test"]}, "there is no file ../../etc/x.py"),
        ({"repo": "acme/other"}, "made of none: name the repository in swebench.toml, or"),
        ({"base_commit": "0" * 40}, "field base_commit: git rev-parse"),
        ({"patch": 3}, "field patch: not a diff"),
        ({"patch": "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n"}, "field patch: git apply"),
        (
            {"patch": "diff --git a/l b/l\nnew file mode 120000\n--- /dev/null\n+++ b/l\n"
             "@@ -0,0 +1 @@\n+/etc/passwd\n\\ No newline at end of file\n"},
            "field patch: the diff would make l, which is no plain file",
        ),
        (
            {"patch": "diff --git a/../x b/../x\nnew file mode 100644\n--- /dev/null\n"
             "+++ b/../x\n@@ -0,0 +1 @@\n+x\n"},
            "field patch: git apply",
        ),
    ],
)  # fmt: skip
def test_a_bad_row_is_named_and_left_out(
    loaded: Callable[..., TaskSet], change: Any, reason: str
) -> None:
    tasks = loaded(change, {})
    assert [task.id for task in tasks.tasks] == ["acme__calc-1"]
    (skipped,) = tasks.skipped
    assert skipped.id.endswith("row 1") and reason in skipped.reason


def test_a_setup_that_fails_is_told(
    loaded: Callable[..., TaskSet], rows: tuple[Path, dict[str, Any]]
) -> None:
    beside = rows[0] / "swebench.toml"
    text = beside.read_text()
    try:
        beside.write_text(text.replace("python3 make_version.py", "echo no version >&2; false"))
        assert "no version" in loaded({}).skipped[0].reason
        beside.write_text(text + "[other]\n")
        with pytest.raises(UserError, match=r"swebench\.toml: other"):
            loaded({})
    finally:
        beside.write_text(text)


def test_tests_without_a_file_are_found_among_those_of_the_row() -> None:
    texts = {
        "sympy/core/tests/test_a.py": "def test_sqrt():\n    pass\n",
        "tests/maths/tests.py": "class RootTest:\n    def test_root(self): pass\n",
    }
    assert Finder(texts).ids("test_sqrt") == ["sympy/core/tests/test_a.py::test_sqrt"]
    root = "tests/maths/tests.py::RootTest::test_root"
    assert Finder(texts).ids("test_root (maths.tests.RootTest)") == [root]
    assert Finder(texts).ids("test_root (maths.tests.RootTest.test_root)") == [root]
    for unknown in ("test_cbrt", "test_root (other.RootTest)", "Sums are added", "x.py::"):
        with pytest.raises(BadRow, match="no test of pytest"):
            Finder(texts).ids(unknown)


PLAIN = st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.just("[]")
JSON = PLAIN | st.lists(PLAIN, max_size=3)
FIELDS = ("instance_id", "repo", "base_commit", "problem_statement", "patch", "test_patch")
FIELDS += ("FAIL_TO_PASS", "PASS_TO_PASS", "image_name")


@settings(max_examples=60)
@given(st.dictionaries(st.sampled_from(FIELDS), JSON))
def test_any_row_is_an_instance_or_bad(row: dict[str, Any]) -> None:
    try:
        found = instance(row)
    except BadRow as error:
        assert str(error).startswith("field ")
    else:
        assert found.tests and isinstance(found.patch, str)


HEADS = st.sampled_from(
    ["diff --git a/{0} b/{1}", "--- a/{0}", "+++ b/{1}", "new file mode {2}", "rename from {0}",
     "rename to {1}", "deleted file mode {2}", "@@ -1 +1 @@", "@@ -0,0 +1 @@", "-a", "+b"]
)  # fmt: skip
PLACES = st.sampled_from(["a.py", "b.py", "../x", "/etc/x", ".git/config", "a.py/x", "d/../x"])
MODES = st.sampled_from(["100644", "100755", "120000", "160000", "040000"])


@settings(max_examples=25)
@given(st.lists(st.tuples(HEADS, PLACES, PLACES, MODES), min_size=1, max_size=8))
def test_no_diff_leads_out_of_the_tree(lines: list[tuple[str, str, str, str]]) -> None:
    diff = "\n".join(line.format(*words) for line, *words in lines)
    try:
        changed = patched_files({"a.py": File(data=b"a\n")}, diff)
    except UserError:
        return
    assert set(changed) <= {"a.py", "b.py", "a.py/x"}
