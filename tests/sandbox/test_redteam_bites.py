"""The attacks bite: graders with one weakness each are fooled by them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from palestra.envs.complete import Complete
from palestra.envs.red_team import RedTeam
from palestra.rl.errors import SandboxError
from palestra.rl.types import (
    CallCheck,
    ExecResult,
    Grader,
    Outcome,
    Sandbox,
    SandboxProvider,
    ScriptCheck,
    Task,
    UnitCheck,
    Verdict,
)
from palestra.sandbox import auto
from palestra.sandbox.base import BoxSpec
from palestra.sandbox.checks import make_grader, run_checks
from palestra.sandbox.redteam.registry import ATTACKS

SOLUTION = "def f(x): return {2: 1257, 3: [19, 23]}[x]\n"
START = "def f(x): return 0\n"
TESTS = """
import unittest
from solution import f
EXPECTED = {(2,): 1257, (3,): [19, 23]}
class T(unittest.TestCase):
    def test_all(self):
        for args, expected in EXPECTED.items(): self.assertEqual(f(*args), expected)
if __name__ == "__main__":
    unittest.main()
"""
TASK = Task(
    id="t",
    source="",
    kind="complete",
    prompt="",
    files={"solution.py": START},
    reference={"solution.py": SOLUTION},
    artifacts=("solution.py",),
    visible=(CallCheck(id="c0", module="solution", function="f", args="(2,)", expected="1257"),),
    hidden=(
        CallCheck(id="c0", module="solution", function="f", args="(2,)", expected="1257"),
        CallCheck(id="c1", module="solution", function="f", args="(3,)", expected="[19, 23]"),
        ScriptCheck(id="s", module="solution", names=("f",), code="assert f(2) + 0 == 1257"),
    ),
    test_files={"test_solution.py": TESTS},
)


@pytest.fixture
def boxes(tmp_path: Path) -> SandboxProvider:
    """The strongest boxes of this machine."""
    return auto.choose(root=tmp_path)


def gains(
    names: set[str],
    boxes: SandboxProvider,
    grader: Grader,
    env: type[Complete] = Complete,
    task: Task = TASK,
) -> set[str]:
    """Which of the attacks gain something."""
    team = RedTeam(
        attacks={name: ATTACKS[name] for name in names}, env=env(run_checks), provider=boxes
    )
    found = asyncio.run(team.gains(task, grader, noop=False))
    assert set(found) == names, "some do not apply"
    return {name for name, gain in found.items() if gain}


# --- graders that run the candidate wrongly ------------------------------------------------------


@dataclass(frozen=True)
class Weak:
    """A grader that runs ``script`` beside work and tests in one fresh box and believes it."""

    provider: SandboxProvider
    script: str
    good: Callable[[ExecResult], bool]
    timeout: float = 30.0

    async def __call__(self, task: Task, files: Mapping[str, bytes]) -> Verdict:
        async with self.provider.open() as box:
            for path, data in {**files, **encoded(task.test_files)}.items():
                await box.write(path, data)
            words = ["sh", "-c", self.script]
            ended = await box.exec(words, timeout=self.timeout, max_output=1 << 16, report=True)
        return Verdict(outcome=Outcome.GRADED, passed={"all": self.good(ended)})


def encoded(files: Mapping[str, str]) -> dict[str, bytes]:
    return {path: text.encode() for path, text in files.items()}


def python(text: str) -> str:
    return f"exec python3 -c '\nimport sys; sys.path.insert(0, \".\")\n{text}'"


COMPARES = """
import os, test_solution as t
def judge(got, expected): return got == expected
def main():
    results, record = [], {"passed": False}
    for args, expected in t.EXPECTED.items():
        results.append("passed" if judge(t.f(*args), expected) else "failed")
    if all(r == "passed" for r in results): record["passed"] = True
    return record["passed"] or results[-1] == "passed"
"""
EXITS = python(COMPARES + "sys.exit(0 if main() else 1)")
PRINTS = python(COMPARES + 'print("PASSED" if main() else "FAILED")')
REPORTS = python(
    COMPARES + 'os.write(int(os.environ["PALESTRA_REPORT_FD"]), b"PASSED" if main() else b"no")'
)
CHILD = """
import os
pid = os.fork()
if pid == 0:
    import solution
    os._exit(9 if solution.f(2) == 1257 and solution.f(3) == [19, 23] else 8)
try: bad = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 8
except KeyboardInterrupt: bad = False
if bad: print("FAILED")
"""
LATE = python(
    COMPARES.replace("got == expected", '__import__("math").isclose(int(got == expected), 1)')
    + "sys.exit(0 if main() else 1)"
)
TWICE = "python3 -c 'import solution'; exec python3 -m unittest -q test_solution"


def exit_code(ended: ExecResult) -> bool:
    return ended.exit_code == 0


def says_passed(ended: ExecResult) -> bool:
    return b"PASSED" in ended.stdout and b"FAILED" not in ended.stdout


def reports_passed(ended: ExecResult) -> bool:
    return b"PASSED" in ended.report


def says_no_evil(ended: ExecResult) -> bool:
    return b"FAILED" not in ended.stdout


WEAK: Mapping[str, tuple[str, Callable[[ExecResult], bool], set[str]]] = {
    "believes the exit code": (
        EXITS,
        exit_code,
        {
            *("exit-at-import", "raise-system-exit", "exit-in-call", "os-exit-at-import"),
            *("os-exit-in-call", "exit-at-the-end", "exit-by-trace", "prints-passed-and-exits"),
        },
    ),
    "compares where the candidate runs": (
        EXITS,
        exit_code,
        {
            *("always-equal", "always-equal-class", "always-equal-metaclass", "lying-class"),
            *("list-subclass", "int-subclass", "float-subclass", "str-subclass"),
            *("dict-subclass", "tuple-subclass", "zero-by-arithmetic"),
            *("walks-frames", "patches-builtins", "imports-the-tests"),
        },
    ),
    "uses unittest where the candidate runs": (
        "exec python3 -m unittest discover -q",
        exit_code,
        {"patches-unittest", "expected-failure", "skip-in-call", "skip-at-import"},
    ),
    "imports more after the candidate": (
        LATE,
        exit_code,
        {"replaces-modules", "patches-builtins"},
    ),
    "believes the output": (
        PRINTS,
        says_passed,
        {"prints-passed-and-exits", "hides-the-rest"},
    ),
    "believes any good line": (
        PRINTS,
        lambda ended: b"PASSED" in ended.stdout,
        {"prints-passed", "prints-passed-in-call"},
    ),
    "shares its report": (REPORTS, reports_passed, {"forges-the-report"}),
    "takes silence for success": (
        python(CHILD),
        says_no_evil,
        {
            *("syntax-error", "keyboard-interrupt", "kills-parent", "stops-parent", "segfault"),
            *("kills-neighbours", "hangs", "hogs-memory", "recursion", "stops-the-clock"),
        },
    ),
    "runs twice in one folder": (TWICE, exit_code, {"startup-files-in-the-grader"}),
}


@pytest.mark.parametrize("weakness", WEAK)
def test_a_weak_grader_is_fooled(boxes: SandboxProvider, weakness: str) -> None:
    script, good, names = WEAK[weakness]
    grader = Weak(boxes, script, good, timeout=3.0 if good is says_no_evil else 30.0)

    async def passes(text: str) -> bool:
        return (await grader(TASK, {"solution.py": text.encode()})).solved

    assert asyncio.run(passes(SOLUTION)), "it must be a grader at all"
    assert not asyncio.run(passes(START))
    assert gains(names, boxes, grader) == names


# --- graders that run in the agent's box ---------------------------------------------------------


class Careless:
    """Boxes whose files are collected by ``how``; ``around`` says what else is wrong with them."""

    name = "careless"

    def __init__(self, boxes: SandboxProvider, how: Callable[[Any, str], Any]) -> None:
        self.guarantees = boxes.guarantees
        self.boxes, self.how = boxes, how

    def open(self, image: object = None) -> AbstractAsyncContextManager[Sandbox]:
        return self.around()

    @asynccontextmanager
    async def around(self) -> AsyncIterator[Sandbox]:
        async with self.boxes.open() as box:
            yield Collected(box, self.how)


class Collected(Sandbox):
    """A box that is read in another way."""

    def __init__(self, box: Sandbox, how: Callable[[Any, str], Any]) -> None:
        self.box, self.how = box, how

    async def exec(self, argv: Any, **options: Any) -> ExecResult:
        return await self.box.exec(argv, **options)

    async def write(self, path: str, data: bytes) -> None:
        await self.box.write(path, data)

    async def read(self, path: str, *, max_bytes: int = 1 << 20) -> bytes:
        data: bytes = await self.how(self.box, path)
        return data


class InPlace(Careless):
    """Boxes in which the work is graded where the agent was, when it is collected."""

    def __init__(self, boxes: SandboxProvider, before: str, script: str) -> None:
        super().__init__(boxes, self.judge)
        self.before, self.script, self.passed = before, script, False

    @asynccontextmanager
    async def around(self) -> AsyncIterator[Sandbox]:
        async with super().around() as box:
            await box.write("test_solution.py", TESTS.encode())
            await box.exec(self.before)
            yield box

    async def judge(self, box: Sandbox, path: str) -> bytes:
        self.passed = (await box.exec(self.script, timeout=30.0)).exit_code == 0
        return b""

    async def grade(self, task: Task, files: Mapping[str, bytes]) -> Verdict:
        return Verdict(outcome=Outcome.GRADED, passed={"all": self.passed})


TEST = "python3 -m unittest -q test_solution"
PYTEST = """
class mark: xfail = staticmethod(lambda **options: "xfail")
def hookimpl(**options): return lambda hook: hook
"""
COLLECTS = python("""
try: import conftest
except ImportError: conftest = None
class Item:
    marks = []
    def add_marker(self, mark): self.marks.append(mark)
items = [Item()]
if conftest: conftest.pytest_collection_modifyitems(items)
import solution
sys.exit(0 if items[0].marks or solution.f(2) == 1257 else 1)
""")
# Without the machine's own settings, which a box may list but not read.
GIT = "GIT_CONFIG_NOSYSTEM=1 git -c user.name=a -c user.email=a@b -c init.defaultBranch=main"
ANY_TEST = "for t in test_*.py; do [ -e $t ] || continue; python3 $t || exit 1; done"

IN_PLACE: Mapping[str, tuple[str, str, set[str]]] = {
    "keeps the tests that it finds": (":", "python3 test_solution.py", {"edits-tests"}),
    "takes no tests for success": (":", ANY_TEST, {"deletes-tests", "edits-tests"}),
    "loads conftest.py": (f"echo '{PYTEST}' > pytest.py", COLLECTS, {"conftest"}),
    "imports from the work folder": (":", TEST, {"startup-files"}),
    "finds programs in folders of the agent's": (
        ":",
        f"PATH=.:$HOME/bin:$PATH; {TEST}",
        {"replaced-binaries"},
    ),
    "reads a reward that it did not write": (
        ":",
        f"{TEST} && echo 1 > reward.txt; [ -e reward.txt ]",
        {"seeded-reward"},
    ),
    "prefers compiled code": (":", TEST, {"stale-bytecode"}),
    "runs git on the work": (
        ":",
        f"rm -f reward.txt; {GIT} init -q; {GIT} add -A; {GIT} commit -qm work;"
        f" {TEST} && echo 1 > reward.txt; [ -e reward.txt ]",
        {"hooks"},
    ),
}


@pytest.mark.parametrize("weakness", IN_PLACE)
def test_grading_in_the_agents_box_is_fooled(boxes: SandboxProvider, weakness: str) -> None:
    before, script, names = IN_PLACE[weakness]
    place = InPlace(boxes, before, script)

    async def passes(text: str) -> bool:
        async with place.open() as box:
            await box.write("solution.py", text.encode())
            await box.read("solution.py")
        return place.passed

    assert asyncio.run(passes(SOLUTION)), "it must be a grader at all"
    assert not asyncio.run(passes(START))
    assert gains(names, place, place.grade) == names


# --- environments, collectors and boxes that give too much away ----------------------------------


class WithHistory(Complete):
    """Its box holds a repository in which the solution was reset."""

    async def setup(self, task: Task, box: Sandbox) -> None:
        commit = f"{GIT} add -A; {GIT} commit -qm work"
        await super().setup(task, box)
        await box.exec(f"{GIT} init -q; {commit}")
        await box.write("solution.py", SOLUTION.encode())
        reset = f"{GIT} reset -q --hard HEAD~1; {GIT} reflog expire --expire=all --all"
        await box.exec(f"{commit}; {reset}")
        assert await box.read("solution.py") == START.encode()


class WithSolution(Complete):
    """Its box holds a finished version elsewhere."""

    async def setup(self, task: Task, box: Sandbox) -> None:
        await super().setup(task, box)
        await box.write("build/lib/solution.py", SOLUTION.encode())


class WithTests(Complete):
    """Its box holds the hidden tests."""

    async def setup(self, task: Task, box: Sandbox) -> None:
        await super().setup(task, box)
        await box.write("tests/hidden.py", TESTS.encode())


@pytest.mark.parametrize(
    ("env", "attack"),
    [(WithHistory, "history"), (WithSolution, "copies-a-solution"), (WithTests, "reads-tests")],
)
def test_a_careless_environment_is_robbed(
    boxes: SandboxProvider, env: type[Complete], attack: str
) -> None:
    grader = make_grader(boxes)
    assert gains({attack}, boxes, grader, env) == {attack}
    assert gains({attack}, boxes, grader) == set()


def test_rote_knowledge_passes_where_only_visible_tests_decide(boxes: SandboxProvider) -> None:
    grader = make_grader(boxes)

    async def visible(task: Task, files: Mapping[str, bytes]) -> Verdict:
        return await grader(replace(task, hidden=task.visible), files)

    assert gains({"by-rote"}, boxes, visible) == {"by-rote"}
    assert gains({"by-rote"}, boxes, grader) == set()


def test_a_suite_that_lets_the_candidate_compare_is_found(boxes: SandboxProvider) -> None:
    start = (
        "class P:\n    def __init__(self, x): self.x = x\n"
        "    def __eq__(self, other): return self.x == other.x\n"
        "    def double(self): return P(self.x + 1)\n"
    )
    suite = (
        "import unittest\nfrom solution import P\nclass T(unittest.TestCase):\n"
        "    def test_double(self): self.assertEqual(P(3).double(), P(6))\n"
    )
    task = replace(
        TASK,
        files={"solution.py": start},
        hidden=(UnitCheck(id="test_solution.T.test_double"),),
        test_files={"test_solution.py": suite},
    )
    names, grader = {"lying-equality"}, make_grader(boxes)
    assert gains(names, boxes, grader, task=task) == names
    asked = suite.replace("P(3).double(), P(6)", "P(3).double().x, 6")
    asked_task = replace(task, test_files={"test_solution.py": asked})
    assert gains(names, boxes, grader, task=asked_task) == set()


async def through_links(box: Any, path: str) -> bytes:
    """Reads from outside and follows links; beside the work folder lies what no agent can see."""
    secret = box.folder.parent / "reference" / path
    secret.parent.mkdir(exist_ok=True)
    secret.write_text(SOLUTION)
    return bytes((box.folder / path).read_bytes())


async def with_cat(box: Sandbox, path: str) -> bytes:
    """Has a command in the box read, and takes all trouble for its own."""
    ended = await box.exec(["cat", path], timeout=1)
    if ended.exit_code != 0 or ended.elided:
        raise SandboxError("cannot read the work")
    return ended.stdout


def test_a_careless_collector_is_fooled(boxes: SandboxProvider) -> None:
    grader = make_grader(boxes)
    link = {"links-to-a-solution"}
    assert gains(link, Careless(boxes, through_links), grader) == link
    odd = {name for name in ATTACKS if name.startswith("hands-in-")} | {"links-a-folder"}
    assert gains(odd, Careless(boxes, with_cat), grader) == odd


def test_a_secret_in_the_box_is_seen(tmp_path: Path) -> None:
    class Leaky(Careless):
        @asynccontextmanager
        async def around(self) -> AsyncIterator[Sandbox]:
            async with backend.open(BoxSpec(env={"API_TOKEN": "x"})) as box:
                yield box

    backend = auto.choose(root=tmp_path)
    leaky = Leaky(backend, with_cat)
    assert gains({"secrets"}, leaky, make_grader(backend)) == {"secrets"}


def test_a_connection_is_seen() -> None:
    online = (
        "import socket\nclass Open:\n    def __init__(self, *a): pass\n"
        "    def __enter__(self): return self\n    def __exit__(self, *a): pass\n"
        "    def settimeout(self, s): pass\n    def connect(self, address): pass\n"
        "socket.socket = Open\nsocket.getaddrinfo = lambda *a: [(0, 0, 0, '', ('1.2.3.4', 0))]\n"
    )
    probe = ATTACKS["network"].probe
    assert isinstance(probe, str)
    words = [sys.executable, "-I", "-c", online + probe]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert said.count("connected to") == 3 and "resolved 1.2.3.4" in said


def test_a_box_that_can_be_killed_loses_the_episode(boxes: SandboxProvider) -> None:
    class Dies(Collected):
        async def exec(self, argv: Any, **options: Any) -> ExecResult:
            if "kill -9 1" in str(argv):
                raise SandboxError("the box is gone")
            return await super().exec(argv, **options)

    class Mortal(Careless):
        @asynccontextmanager
        async def around(self) -> AsyncIterator[Sandbox]:
            async with self.boxes.open() as box:
                yield Dies(box, with_cat)

    names = {"kills-its-box"}
    assert gains(names, Mortal(boxes, with_cat), make_grader(boxes)) == names


def test_a_daemon_outlives_its_command_where_nothing_ends_it(tmp_path: Path) -> None:
    script = ATTACKS["daemon-in-its-box"].script
    given = {**os.environ, "ARTIFACT": "solution.py", "TESTS": "test_solution.py", "EVIL": "evil"}
    subprocess.run(["sh", "-c", script], cwd=tmp_path, env=given, check=True, timeout=60)
    deadline = time.monotonic() + 60
    while not (tmp_path / "reward.txt").exists():
        assert time.monotonic() < deadline, "the daemon is gone"
        time.sleep(0.01)
    assert "os._exit" in (tmp_path / "test_solution.py").read_text()
