# ruff: noqa: E501 - programs in strings
"""What checks mean: values, scripts and unit tests, run against candidates in real boxes."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import resource
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palestra.rl.errors import SandboxError, UserError
from palestra.rl.types import (
    CallCheck,
    Check,
    CheckJob,
    CheckResult,
    ExecResult,
    Outcome,
    ScriptCheck,
    SuiteCheck,
    Task,
    UnitCheck,
)
from palestra.sandbox.bubblewrap import Bubblewrap
from palestra.sandbox.checks import MAX_ARTIFACT, Fresh, Runner, make_grader, run_checks
from palestra.sandbox.codec import decode, encode
from palestra.sandbox.compare import same
from palestra.sandbox.warm import Warm
from palestra.sandbox.watch import WALL_LIMITS
from palestra.sandbox.worker import SUITE_LIMITS

_ROOT = Path(__file__).resolve().parents[2]


def data_folder(*parts: str) -> Path:
    """A folder of PALESTRA_DATA (or ../shared/data); skips without it, but fails on CI."""
    root = Path(os.environ.get("PALESTRA_DATA", _ROOT.parent / "shared" / "data"))
    folder = root.joinpath(*parts)
    if not folder.exists():
        reason = f"{folder} is absent; set PALESTRA_DATA to the folder of public data sets"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


def top_names(code: str) -> tuple[str, ...]:
    """Functions, classes and variables that a module defines."""
    names: list[str] = []
    for node in ast.parse(code).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign):
            names += [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names += [alias.asname or alias.name.split(".")[0] for alias in node.names]
    return tuple(names)


def sanitized_mbpp() -> dict[str, CheckJob]:
    """427 references with plain asserts."""
    rows = json.loads(data_folder("mbpp", "sanitized-mbpp.json").read_text())
    jobs: dict[str, CheckJob] = {}
    for row in rows:
        names = tuple(name for name in top_names(row["code"]) if name != "*")
        imports = "\n".join(row["test_imports"])
        checks = tuple(
            ScriptCheck(id=f"{row['task_id']}#{i}", module="solution", names=names, code=code)
            for i, code in enumerate(f"{imports}\n{test}" for test in row["test_list"])
        )
        jobs[str(row["task_id"])] = CheckJob(files={"solution.py": row["code"]}, checks=checks)
    return jobs


def mxeval_mbpp() -> dict[str, CheckJob]:
    """974 references with a ``check(candidate)`` function each."""
    lines = data_folder("mbpp", "mxeval_mbpp_release_v1.jsonl").read_text().splitlines()
    jobs: dict[str, CheckJob] = {}
    for row in map(json.loads, lines):
        code = row["prompt"] + row["canonical_solution"]
        check = ScriptCheck(
            id=row["task_id"],
            module="solution",
            names=(row["entry_point"],),
            code=f"_candidate = {row['entry_point']}\n{row['test']}\ncheck(_candidate)",
        )
        jobs[row["task_id"]] = CheckJob(files={"solution.py": code}, checks=(check,))
    return jobs


def exercism() -> dict[str, CheckJob]:
    """Exercises with reference, tests and helpers."""
    jobs: dict[str, CheckJob] = {}
    for folder in sorted(data_folder("exercism-python", "practice").iterdir()):
        tests = {p.name: p.read_text() for p in folder.glob("*.py") if p.stem != module_of(folder)}
        checks = tuple(
            UnitCheck(id=f"{Path(name).stem}.{case.name}.{method.name}")
            for name, text in sorted(tests.items())
            for case in ast.parse(text).body
            if isinstance(case, ast.ClassDef)
            for method in case.body
            if isinstance(method, ast.FunctionDef) and method.name.startswith("test")
        )
        files = {
            (f"{module_of(folder)}.py" if p.name == "example.py" else p.name): p.read_text()
            for p in (folder / ".meta").glob("*.py")
        }
        jobs[folder.name] = CheckJob(files=files, checks=checks, test_files=tests)
    return jobs


def module_of(folder: Path) -> str:
    """Name of the module that an exercise asks for."""
    return folder.name.replace("-", "_")


# Records of the data set that fail in a plain interpreter as well.
BROKEN_MXEVAL = {64, 160, 367, 596, 601, 607, 631, 642, 927, 966}
SKIPPED_EXERCISM = {"alphametics_test.AlphameticsTest.test_puzzle_with_ten_letters_and_199_addends"}


def run(runner: Runner, jobs: Sequence[CheckJob], **options: float) -> list[list[CheckResult]]:
    return asyncio.run(runner.run(jobs, **options))


def results(runner: Runner, code: str, *checks: Check, **files: str) -> list[CheckResult]:
    tests = {name + ".py": text for name, text in files.items()}
    job = CheckJob(files={"solution.py": code}, checks=checks, test_files=tests)
    return run(runner, [job])[0]


def call(args: str, expected: str, function: str = "f") -> CallCheck:
    return CallCheck(
        id=f"{function}{args}", module="solution", function=function, args=args, expected=expected
    )


def script(code: str, *names: str) -> ScriptCheck:
    return ScriptCheck(id=code, module="solution", names=names or ("f",), code=code)


def passed(found: Sequence[CheckResult]) -> list[bool]:
    return [result.passed for result in found]


def task(*checks: Check, artifacts: tuple[str, ...] = ("solution.py",)) -> Task:
    return Task(
        id="t",
        source="",
        kind="",
        prompt="",
        files={},
        reference={},
        artifacts=artifacts,
        hidden=checks,
    )


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
        | st.frozensets(st.integers() | st.text(), max_size=4)
    ),
    max_leaves=12,
)


@given(plain)
@settings(max_examples=200)
def test_codec_round_trip_keeps_value_and_type(value: object) -> None:
    again = decode(encode(value))
    assert again == value and type(again) is type(value) and same(value, again)


@given(st.binary(max_size=200))
@settings(max_examples=500)
def test_codec_survives_hostile_bytes(data: bytes) -> None:
    try:
        decode(data)
    except ValueError:
        return


def test_codec_packs_long_lists() -> None:
    for value in ([5] * 1000, [0.5] * 1000, [2**70] * 1000, [1, True] * 500):
        assert decode(encode(value)) == value
        assert [type(v) for v in decode(encode(value))] == [type(v) for v in value]  # type: ignore[attr-defined]


@pytest.mark.parametrize("value", [type("L", (list,), {})(), type("I", (int,), {})(3), object()])
def test_codec_refuses_subclasses_and_objects(value: object) -> None:
    with pytest.raises(TypeError):
        encode([value])


def test_codec_refuses_endless_nesting() -> None:
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(TypeError):
        encode(loop)


@pytest.mark.parametrize(
    ("expected", "got", "verdict"),
    [
        (1, 1, True),
        (1, 1.0, True),
        (1, True, False),
        ([1], (1,), False),
        (0.3, 0.1 + 0.2, True),
        (0.3, 0.3001, False),
        (float("nan"), float("nan"), True),
        ({1}, {True}, False),
        ({"a": 0.3}, {"a": 0.1 + 0.2}, True),
        ({1: 2}, {True: 2}, False),
        ({(1, frozenset({"a", "b"}))}, {(1, frozenset({"b", "a"}))}, True),
        ("a", b"a", False),
        (None, False, False),
        ([1, 2], [1, 2, 3], False),
    ],
)
def test_comparison(expected: object, got: object, verdict: bool) -> None:
    assert same(expected, got) is verdict


def test_calls(runner: Runner) -> None:
    code = (
        "def f(x):\n    if x == 3:\n        raise ValueError('three')\n    return [x, {x: 'é'}]\n"
    )
    found = results(
        runner,
        code,
        call("(1,)", "[1, {1: 'é'}]"),
        call("(2,)", "[1, {1: 'é'}]"),
        call("(3,)", "None"),
        call("()", "None"),
        call("(1,)", "1", function="missing"),
    )
    assert passed(found) == [True, False, False, False, False]
    assert found[1].got == "[2, {2: 'é'}]"
    assert found[2].got == "ValueError: three"
    assert found[4].got.startswith("AttributeError")


def test_calls_reach_methods_packages_and_data_files(runner: Runner) -> None:
    files = {
        "pkg/__init__.py": "",
        "pkg/inner.py": "from pkg import other\nclass C:\n    f = staticmethod(lambda: other.K)\n",
        "pkg/other.py": "K = open('data.txt').read()",
        "data.txt": "payload",
    }
    check = CallCheck(id="x", module="pkg.inner", function="C.f", args="()", expected="'payload'")
    assert passed(run(runner, [CheckJob(files=files, checks=(check,))])[0]) == [True]


def test_a_hanging_check_fails_and_the_job_ends(runner: Runner) -> None:
    code = "import time\ndef f(x):\n    while x == 1: pass\n    if x == 2: time.sleep(99)\n    return x"
    job = CheckJob(
        files={"solution.py": code}, checks=tuple(call(f"({i},)", str(i)) for i in (0, 1, 3))
    )
    found = run(runner, [job, job], check_s=0.3)
    for one in found:
        assert passed(one) == [True, False, False]
        assert "no answer" in one[1].got and "not run" in one[2].got


def test_an_exit_costs_only_its_own_check(runner: Runner) -> None:
    code = "import os\ndef f(x):\n    if x == 1: os._exit(0)\n    return x"
    checks = [call(f"({i},)", str(i)) for i in range(4)] + [
        script(f"assert f({i}) == {i}") for i in range(4)
    ]
    assert passed(results(runner, code, *checks)) == [True, False, True, True] * 2


def test_a_driver_with_many_open_files_gives_candidates_none(runner: Runner) -> None:
    """The report's number in a box is the one that it has here."""
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 5000:
        pytest.skip("this machine allows few open files")
    forged = "answer = bytes(12) + b'p'\n"
    code = f"import os\n{forged}for fd in range(4100, 5000):\n    try: os.write(fd, answer)\n"
    code += "    except OSError: pass\ndef f(x): return 0"
    files = [os.dup(0) for _ in range(4200)]
    try:
        # A warm box that was made before has a report of a small number.
        other = Warm(runner._backend) if isinstance(runner, Warm) else runner
        assert passed(results(other, code, script("assert f(1) == 1"))) == [False]
    finally:
        for fd in files:
            os.close(fd)


def test_jobs_do_not_share_state(runner: Runner) -> None:
    code = "import sys\nsys.seen = getattr(sys, 'seen', 0) + 1\ndef f(): return sys.seen"
    job = CheckJob(files={"solution.py": code}, checks=(call("()", "1"),))
    assert all(all(passed(found)) for found in run(runner, [job] * 20))


SHAPES = '''
class Shape:
    """A shape."""
    sides = 4
    def __init__(self, size): self.size = size
    def area(self): return self.size ** 2
    def __eq__(self, other): return isinstance(other, Shape) and other.size == self.size
    def __hash__(self): return hash(self.size)
    def __lt__(self, other): return self.size < other.size
    def __add__(self, other): return Shape(self.size + getattr(other, "size", other))
    __radd__ = __add__
    def __len__(self): return self.size
    def __iter__(self): return iter(range(self.size))
    def __contains__(self, x): return 0 <= x < self.size
    def __getitem__(self, i): return list(self)[i]
    def __call__(self, y, *, z=0): return self.size + y + z
    def __enter__(self): return self
    def __exit__(self, *e): self.closed = e[0] is KeyError; return self.closed
    def __repr__(self): return f"Shape({self.size})"
    @property
    def twice(self): return 2 * self.size
class TooBig(ValueError):
    def __init__(self, size): super().__init__(size); self.size = size
    def __str__(self): return f"too big: {self.size}"
def f(x): return x
def check(size):
    if size > 9: raise TooBig(size)
def gen(n):
    for i in range(n): yield i
def sort(xs, seen): xs.sort(); seen["n"] = len(xs)
def apply(g, x): return g(x)
def echo(x): return x
LIMIT = 9
'''


@pytest.mark.parametrize(
    "code",
    [
        "s = Shape(3); assert s.area() == 9 and s.twice == 6 and s.size == 3 and Shape.sides == 4",
        "assert Shape(2) == Shape(2) and Shape(2) != Shape(3) and Shape(1) < Shape(2)",
        "assert len({Shape(1), Shape(1), Shape(2)}) == 2",
        "assert Shape(1) + Shape(2) == Shape(3)",
        "assert len(Shape(3)) == 3 and list(Shape(3)) == [0, 1, 2] and 2 in Shape(3)",
        "assert Shape(4)[1:3] == [1, 2] and Shape(1)(2, z=3) == 6",
        "assert repr(Shape(1)) == str(Shape(1)) == f'{Shape(1)}' == 'Shape(1)'",
        "assert isinstance(Shape(1), Shape) and not isinstance(3, Shape)",
        "with Shape(1) as s: raise KeyError(1)\nassert s.closed",
        "s = Shape(1); s.size = 7; assert s.area() == 49",
        "assert list(gen(4)) == [0, 1, 2, 3]\ng = gen(1); next(g)\ntry: next(g)\nexcept StopIteration: pass\nelse: assert 0",
        "xs, seen = [3, 1, 2], {}; sort(xs, seen); assert (xs, seen) == ([1, 2, 3], {'n': 3})",
        "assert apply(lambda x: x + 1, 2) == 3 and apply(str.upper, 'a') == 'A'",
        "log = []; apply(log.append, 5); assert log == [5]",
        "def boom(x): raise KeyError(x)\ntry: apply(boom, 7)\nexcept KeyError as e: assert e.args == (7,)\nelse: assert 0",
        "try: check(10)\nexcept TooBig as e: assert str(e) == 'too big: 10' and e.size == 10\nelse: assert 0",
        "try: check(10)\nexcept ValueError as e: assert e.args == (10,)\nelse: assert 0",
        "from collections import Counter, deque, OrderedDict\nassert echo(Counter('aab')) == Counter('aab') and echo(deque([1])) == deque([1])",
        "from datetime import datetime, timedelta\nassert echo(datetime(2020, 1, 2)) + timedelta(1) == datetime(2020, 1, 3)",
        "from fractions import Fraction\nfrom decimal import Decimal\nassert echo([Fraction(1, 2), Decimal('1.5')]) == [Fraction(1, 2), Decimal('1.5')]",
        "assert LIMIT == 9 and echo(int) is int and echo(range(3)) == range(3)",
        "import solution\nassert solution.echo(1) == 1 and solution.LIMIT == 9",
        "from solution import *\nassert echo(2) == 2",
        "class Mine:\n    x = 5\n    def hi(self): return 'hi'\nassert apply(lambda m: m.hi(), Mine()) == 'hi'",
    ],
)
def test_scripts_use_candidates_as_if_they_were_local(code: str) -> None:
    names = ("Shape", "TooBig", "check", "gen", "sort", "apply", "echo", "LIMIT")
    found = results(Fresh(Bubblewrap()), SHAPES, script(code, *names))
    assert passed(found) == [True], found[0].got


@pytest.mark.parametrize(
    "code",
    [
        "assert echo(1) == 2",
        "assert Shape(1) == Shape(2)",
        "raise SystemExit(0)",
        "import os; echo(1); raise KeyboardInterrupt",
        "assert Shape(1) == 1",
        "assert missing",
        "syntax error",
    ],
)
def test_scripts_that_must_fail(code: str) -> None:
    assert passed(results(Fresh(Bubblewrap()), SHAPES, script(code, "echo", "Shape"))) == [False]


UNIT = """
import unittest
from helper import TWO
import solution
from solution import f, Oops

class First(unittest.TestCase):
    @classmethod
    def setUpClass(cls): cls.base = f(1)
    def test_good(self): self.assertEqual(f(TWO) + self.base, 3)
    def test_bad(self): self.assertEqual(f(TWO), 3)
    def test_raises(self):
        with self.assertRaises(Oops) as err: f(-1)
        self.assertEqual(err.exception.args[0], "negative")
        with self.assertRaisesRegex(ValueError, "nega"): f(-1)
    @unittest.skip("no")
    def test_skipped(self): pass
    @unittest.expectedFailure
    def test_expected(self): self.fail()
    def test_subtests(self):
        for i in (1, 2):
            with self.subTest(i=i): self.assertEqual(f(i), 1)
    def test_skips_itself(self): self.skipTest("no")

class Second(unittest.TestCase):
    @classmethod
    def setUpClass(cls): raise RuntimeError("no set-up")
    def test_never(self): pass
"""


def test_unit_tests(runner: Runner) -> None:
    code = "class Oops(ValueError): pass\ndef f(x):\n    if x < 0: raise Oops('negative')\n    return x"
    names = ["good", "bad", "raises", "skipped", "expected", "subtests", "skips_itself", "absent"]
    checks = [UnitCheck(id=f"f_test.First.test_{name}") for name in names]
    checks += [UnitCheck(id="f_test.Second.test_never"), UnitCheck(id="gone.A.test")]
    found = results(runner, code, *checks, f_test=UNIT, helper="TWO = 2")
    assert passed(found) == [True, False, True] + [False] * 7
    assert found[1].got == "AssertionError: 2 != 3"
    assert found[3].got.startswith("skipped")


def test_mixed_kinds_keep_their_order(runner: Runner) -> None:
    code = "class Oops(Exception): pass\ndef f(x): return x"
    checks = [
        script("assert f(1) == 1"),
        call("(1,)", "1"),
        UnitCheck(id="f_test.First.test_good"),
        call("(1,)", "2"),
    ]
    found = results(runner, code, *checks, f_test=UNIT, helper="TWO = 2")
    assert passed(found) == [True, True, True, False]
    assert [result.id for result in found] == [check.id for check in checks]


def test_nothing_to_do(runner: Runner) -> None:
    assert run(runner, []) == []
    assert run(runner, [CheckJob(files={}, checks=())]) == [[]]


def test_task_data_that_cannot_be_read_is_the_users_error(runner: Runner) -> None:
    for check in (call("(1,", "1"), call("(1,)", "f()"), call("1", "1")):
        with pytest.raises(UserError):
            results(runner, "def f(x): return x", check)


def test_syntax_error_fails_every_check(runner: Runner) -> None:
    found = results(runner, "def f(:", call("(1,)", "1"), script("f(1)"))
    assert passed(found) == [False, False]
    assert "SyntaxError" in found[0].got


class BrokenBox:
    """A box whose commands never start the worker."""

    async def exec(self, argv: Sequence[str], **_: object) -> ExecResult:
        return ExecResult(exit_code=127, stderr=b"python3: not found")


def test_a_worker_that_never_started_is_not_the_agents_fault() -> None:
    job = CheckJob(files={}, checks=(call("(1,)", "1"),))
    with pytest.raises(SandboxError, match="not found"):
        asyncio.run(run_checks([job], BrokenBox()))  # type: ignore[arg-type]


def grade(runner: Runner, the_task: Task, files: dict[str, bytes]) -> object:
    return asyncio.run(make_grader(runner)(the_task, files))  # type: ignore[arg-type]


def test_grading(runner: Runner) -> None:
    the_task = task(call("(1,)", "1"), call("(2,)", "2"))
    grader = make_grader(runner)
    good = asyncio.run(grader(the_task, {"solution.py": b"def f(x): return x"}))
    assert good.solved and good.passed == {"f(1,)": True, "f(2,)": True}
    bad = asyncio.run(grader(the_task, {"solution.py": b"def f(x): return 1"}))
    assert bad.outcome is Outcome.GRADED and not bad.solved
    assert bad.passed == {"f(1,)": True, "f(2,)": False} and bad.reason == "f(2,): 1"


@pytest.mark.parametrize(
    "files",
    [{}, {"other.py": b""}, {"solution.py": b"\xff"}, {"solution.py": b"#" * (MAX_ARTIFACT + 1)}],
    ids=["missing", "other", "not-utf8", "oversize"],
)
def test_unusable_artifacts_are_graded_as_failures(runner: Runner, files: dict[str, bytes]) -> None:
    verdict = asyncio.run(make_grader(runner)(task(call("(1,)", "1")), files))
    assert verdict.outcome is Outcome.GRADED and verdict.passed == {"f(1,)": False}


def test_only_declared_artifacts_are_used(runner: Runner) -> None:
    files = {"solution.py": b"import helper\ndef f(x): return helper.g(x)", "helper.py": b"g = abs"}
    check = call("(1,)", "1")
    assert not asyncio.run(make_grader(runner)(task(check), files)).solved
    both = task(check, artifacts=("solution.py", "helper.py"))
    assert asyncio.run(make_grader(runner)(both, files)).solved


def test_a_box_that_fails_is_an_infrastructure_failure() -> None:
    class NoBoxes:
        name, guarantees = "none", frozenset[str]()

        def open(self, image: object = None) -> object:
            raise SandboxError("out of boxes")

    grader = make_grader(NoBoxes())  # type: ignore[arg-type]
    verdict = asyncio.run(grader(task(call("(1,)", "1")), {"solution.py": b""}))
    assert verdict.outcome is Outcome.INFRA_FAILURE and verdict.reason == "out of boxes"
    assert not verdict.passed


@pytest.mark.parametrize(
    ("check", "limits"),
    [(call("(1,)", "1"), 1), (SuiteCheck(id="test_f.py::test_f"), SUITE_LIMITS)],
)
def test_a_slow_machine_has_the_time_that_the_worker_gives_it(check: Check, limits: float) -> None:
    """The run as a whole must not end before the check that it is for has been given up."""
    given: list[float] = []

    class Runs:
        async def run(
            self, jobs: Sequence[CheckJob], *, timeout: float, check_s: float
        ) -> list[list[CheckResult]]:
            given.append(timeout)
            return [[CheckResult(id=each.id, passed=True) for each in jobs[0].checks]]

    grader = make_grader(Runs(), check_s=3.0)  # type: ignore[arg-type]
    asyncio.run(grader(task(check, check), {"solution.py": b""}))
    [timeout] = given
    assert timeout > (WALL_LIMITS + 1) * limits * 3.0


def test_a_grader_serves_several_event_loops_and_callers(runner: Runner) -> None:
    grader = make_grader(runner, concurrency=2)
    the_task = task(call("(1,)", "1"))

    async def many() -> bool:
        calls = (grader(the_task, {"solution.py": b"def f(x): return x"}) for _ in range(6))
        return all(verdict.solved for verdict in await asyncio.gather(*calls))

    assert asyncio.run(many()) and asyncio.run(many())


@pytest.mark.parametrize(
    ("load", "known"),
    [
        (sanitized_mbpp, set()),
        (mxeval_mbpp, {f"MBPP/{number}" for number in BROKEN_MXEVAL}),
        (exercism, SKIPPED_EXERCISM),
    ],
    ids=["sanitized", "mxeval", "exercism"],
)
def test_references_pass(load: Callable[[], dict[str, CheckJob]], known: set[str]) -> None:
    jobs = list(load().values())
    failed: dict[str, str] = {}
    for start in range(0, len(jobs), 100):
        for found in run(Fresh(Bubblewrap()), jobs[start : start + 100], timeout=300, check_s=10):
            failed |= {result.id: result.got for result in found if not result.passed}
    assert {name: got for name, got in failed.items() if name not in known} == {}
