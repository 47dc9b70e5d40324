"""Suites are run as pytest runs them, and nothing but a plain success is one."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import subprocess
import sys
import venv
from dataclasses import replace
from pathlib import Path

import pytest

from palestra.rl.errors import UserError
from palestra.rl.types import CheckJob, CheckResult, File, SandboxProvider, SuiteCheck
from palestra.sandbox import auto
from palestra.sandbox.candidate import import_sites
from palestra.sandbox.checks import Fresh, Runner
from palestra.sandbox.shipping import PYTHON

CODE = {
    "src/pkg/__init__.py": "from pkg.core import Stack, ask, loud\n",
    "src/pkg/core.py": """
import logging, os, sys
class Stack:
    def __init__(self): self.items = []
    def push(self, x): self.items.append(x); return self
    def pop(self):
        if not self.items: raise IndexError("empty stack")
        return self.items.pop()
def ask(): return os.environ["ANSWER"]
def loud():
    print("out"); print("err", file=sys.stderr); logging.getLogger("pkg").warning("careful %d", 1)
""",
    "tests/__init__.py": "",
}
TESTS = {
    "conftest.py": """
import pytest
order = []
@pytest.fixture(scope="session")
def numbers(): return [1, 2, 3]
@pytest.fixture
def base(): return "outer"
@pytest.fixture(autouse=True)
def noted():
    order.append("up"); yield; order.append("down")
""",
    "tests/helpers.py": "def double(x): return 2 * x\n",
    "tests/test_functions.py": """
import asyncio, enum, os, sys
from unittest import mock
import pytest
import pkg
from pkg import Stack
from tests.helpers import double

class Color(enum.Enum):
    RED = 1

@pytest.fixture
def base(base): return base + "/inner"
@pytest.fixture(params=[1, pytest.param(2, id="two"), "x"])
def each(request): return request.param
@pytest.fixture(scope="module")
def made():
    made = []
    yield made
    made.clear()
@pytest.fixture
def total(request):
    request.addfinalizer(lambda: None)
    return sum(request.getfixturevalue("numbers"))

def test_plain(): assert Stack().push(1).pop() == 1
def test_wrong(): assert Stack().push(1).pop() == 2
def test_raises():
    with pytest.raises(IndexError, match="empty") as caught: Stack().pop()
    assert str(caught.value) == "empty stack" and caught.type is IndexError
    pytest.raises(IndexError, Stack().pop)
def test_raises_nothing():
    with pytest.raises(IndexError): pass
def test_raises_another():
    with pytest.raises(KeyError): Stack().pop()
def test_raises_without_match():
    with pytest.raises(IndexError, match="full"): Stack().pop()
@pytest.mark.parametrize("x, y", [(1, 2), (2, 4), pytest.param(3, 7, id="odd")])
def test_double(x, y): assert double(x) == y
@pytest.mark.parametrize("x", [0, 1.5, None, True, "a b", b"b", Color.RED, int, [], ("t",)])
@pytest.mark.parametrize("y", ["p", "q"])
def test_ids(x, y): pass
@pytest.mark.parametrize("x", ["a", "a", "1", "1"])
def test_twice(x): pass
@pytest.mark.parametrize("x", [1, 2], ids=["one", None])
def test_named(x): assert x
@pytest.mark.parametrize("x", [1, 2], ids=lambda x: f"<{x}>")
def test_called(x): assert x
@pytest.mark.parametrize("x", [1, pytest.param(2, marks=pytest.mark.skip)])
def test_marked(x): assert x
@pytest.mark.parametrize("each", [5, 6], indirect=True)
def test_indirect(each): assert each in (5, 6)
def test_each(each): assert each in (1, 2, "x")
@pytest.mark.parametrize("x", [1, 2])
def test_each_and_more(each, x): assert each
def test_hidden_fixture(base): assert base == "outer/inner"
def test_session(numbers, total): assert total == 6 == sum(numbers)
def test_made_first(made): made.append(1)
def test_made_again(made): assert made == [1]
def test_tmp_path(tmp_path):
    (tmp_path / "f").write_text("1")
    assert os.listdir(tmp_path) == ["f"]
def test_patched(monkeypatch):
    monkeypatch.setenv("ANSWER", "42")
    monkeypatch.setattr(pkg, "loud", lambda: 1)
    monkeypatch.setattr("pkg.core.Stack.pop", lambda self: 9)
    monkeypatch.setitem(sys.modules, "gone", None)
    assert (pkg.ask(), pkg.loud(), Stack().pop()) == ("42", 1, 9)
def test_unpatched():
    assert "ANSWER" not in os.environ and pkg.loud is not None and "gone" not in sys.modules
    with pytest.raises(IndexError): Stack().pop()
def test_output(capsys, caplog):
    pkg.loud()
    out, err = capsys.readouterr()
    assert (out, err) == ("out\\n", "err\\n") and capsys.readouterr().out == ""
    assert caplog.messages == ["careful 1"] and "careful" in caplog.text
def test_approx():
    assert 0.1 + 0.2 == pytest.approx(0.3) and [0.1 + 0.2, 1] == pytest.approx([0.3, 1])
    assert {"a": 1.0000001} == pytest.approx({"a": 1}) and 5 == pytest.approx(6, abs=1)
    assert 1.0 != pytest.approx(1.1) and [1] != pytest.approx([1, 2])
def test_approx_wrong(): assert 1.0 == pytest.approx(1.00001)
def test_warns():
    import warnings
    with pytest.warns(UserWarning, match="old"): warnings.warn("old")
@mock.patch("pkg.core.os.environ", {"ANSWER": "mocked"})
def test_mock_value(): assert pkg.ask() == "mocked"
@mock.patch("pkg.core.Stack.pop")
def test_mock(pop, numbers):
    pop.return_value = numbers
    assert Stack().pop() is numbers
@pytest.mark.skip(reason="no")
def test_skip(): pass
@pytest.mark.skipif(sys.version_info < (3,), reason="old")
def test_not_skipped(): pass
@pytest.mark.skipif("sys.version_info >= (3,)", reason="new")
def test_skip_text(): pass
@pytest.mark.xfail
def test_xfail(): assert False
@pytest.mark.xfail
def test_xpass(): pass
@pytest.mark.xfail(False, reason="never")
def test_no_xfail(): pass
def test_skip_inside(): pytest.skip("now")
def test_xfail_inside(): pytest.xfail("now")
def test_fail_inside(): pytest.fail("now")
def test_importorskip(): pytest.importorskip("no_such_module")
def test_exit(): sys.exit(0)
def test_no_fixture(nothing_of_that_name): pass
@pytest.fixture
def breaks_late():
    yield
    raise RuntimeError
def test_broken_fixture(breaks_late): pass
@pytest.mark.usefixtures("breaks_late")
def test_broken_by_use(): pass
@pytest.mark.slow
def test_own_mark(): pass
def test_default(x=1): assert x == 1
""",
    "tests/test_classes.py": """
import unittest
import pytest
import conftest
from pkg import Stack
pytestmark = pytest.mark.usefixtures("numbers")
def setup_module(module): module.ready = 1
class TestStack:
    @classmethod
    def setup_class(cls): cls.shared = []
    def setup_method(self, method): self.stack = Stack()
    @pytest.fixture
    def full(self):
        self.stack.push(1)
        return self.stack
    def test_empty(self): assert self.stack.items == [] and ready == 1
    def test_full(self, full): assert full is self.stack and self.stack.pop() == 1
    @pytest.mark.parametrize("x", [1, 2])
    def test_push(self, x): assert self.stack.push(x).pop() == 1
    @staticmethod
    def test_static(): assert Stack
class TestOuter:
    class TestInner:
        def test_deep(self): assert ready
@pytest.mark.skip
class TestSkipped:
    def test_one(self): pass
class TestChild(TestStack):
    def test_own(self): assert self.shared == []
class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls): cls.up = True
    def setUp(self): self.stack = Stack()
    def test_good(self): self.assertTrue(self.up); self.assertEqual(self.stack.items, [])
    def test_bad(self): self.assertEqual(1, 2)
    def test_sub(self):
        for i in range(2):
            with self.subTest(i=i): self.assertEqual(i, 0)
    @unittest.skip("no")
    def test_skip(self): pass
    @unittest.expectedFailure
    def test_expected(self): self.fail()
    @unittest.expectedFailure
    def test_unexpected(self): pass
""",
    "tests/test_broken.py": "import no_such_module\ndef test_one(): pass\n",
}


def job(*ids: str, **changes: str) -> CheckJob:
    code = {**CODE, **changes}
    return CheckJob(
        files={},
        checks=tuple(SuiteCheck(id=each) for each in ids),
        test_files=TESTS,
        tree={path: File(data=text.encode()) for path, text in code.items()},
    )


def results(runner: Runner, given: CheckJob, check_s: float = 2.0) -> dict[str, CheckResult]:
    [found] = asyncio.run(runner.run([given], timeout=120, check_s=check_s))
    return {result.id: result for result in found}


def test_packages_of_a_virtual_environment_are_there(tmp_path: Path) -> None:
    venv.create(tmp_path, symlinks=True)
    [packages] = tmp_path.glob("lib/python3*/site-packages")
    (packages / "dep.py").write_text("")
    code = f"import sys\n{inspect.getsource(import_sites)}import_sites()\nimport dep"
    subprocess.run([tmp_path / "bin" / "python3", *PYTHON[1:-1], code], check=True)


RECORD = """
import json
seen = {}
def pytest_runtest_logreport(report):
    good = report.outcome == "passed" and not hasattr(report, "wasxfail")
    seen[report.nodeid] = good and seen.get(report.nodeid, True)
def pytest_sessionfinish():
    with open("record.json", "w") as file: json.dump(seen, file)
"""


def by_pytest(folder: Path) -> dict[str, bool]:
    """What pytest itself says of the suite: passed or not, by id."""
    for path, text in {**CODE, **TESTS, "record.py": RECORD}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    words = "-m pytest -q -p record -p no:cacheprovider -c /dev/null --rootdir=. tests"
    subprocess.run(
        [sys.executable, *words.split(), "-W", "ignore", "--continue-on-collection-errors"],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": "src:."},
        capture_output=True,
        check=False,
    )
    found: dict[str, bool] = json.loads((folder / "record.json").read_text())
    assert 80 < len(found) and 40 < sum(found.values())
    return found


def test_the_verdicts_are_those_of_pytest(tmp_path: Path) -> None:
    expected = by_pytest(tmp_path / "suite")
    found = results(Fresh(auto.choose(root=tmp_path)), job(*expected))
    wrong = {name: said.got for name, said in found.items() if said.passed != expected[name]}
    assert not wrong, str(wrong)


IDS = (
    "tests/test_functions.py::test_plain",
    "tests/test_functions.py::test_double[odd]",
    "tests/test_functions.py::test_double[2-4]",
    "tests/test_classes.py::TestStack::test_full",
    "tests/test_classes.py::Case::test_good",
)


def test_a_suite_runs_in_every_box(anywhere: SandboxProvider) -> None:
    found = results(Fresh(anywhere), job(*IDS))
    assert [found[name].passed for name in IDS] == [True, False, True, True, True], found


def test_a_suite_runs_warm(runner: Runner) -> None:
    for _ in range(2):
        found = results(runner, job(*IDS))
        assert [found[name].passed for name in IDS] == [True, False, True, True, True], found


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("tests/test_functions.py::test_absent", "test_absent"),
        ("tests/test_functions.py::test_double[9]", "no test"),
        ("tests/test_functions.py::test_double", "no test"),
        ("tests/test_absent.py::test_x", "FileNotFoundError"),
        ("tests/test_broken.py::test_one", "no_such_module"),
        ("tests/test_functions.py::test_skip", "Skipped"),
        ("tests/test_functions.py::test_xpass", "expected failure"),
        ("tests/test_classes.py::TestSkipped::test_one", "Skipped"),
        ("tests/test_functions.py::test_no_fixture", "no fixture"),
    ],
)
def test_what_is_not_a_plain_success_fails(tmp_path: Path, name: str, says: str) -> None:
    result = results(Fresh(auto.choose(root=tmp_path)), job(name))[name]
    assert not result.passed and says in result.got


@pytest.mark.parametrize("name", ["test_x", "a.py::", "../a.py::test_x", "/a.py::test_x"])
def test_a_bad_id_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"not FILE::TEST|plain relative path"):
        results(Fresh(auto.choose(root=tmp_path)), job(name))


def test_a_test_that_hangs_or_crashes_fails_alone_or_ends_the_rest(tmp_path: Path) -> None:
    tests = {"test_x.py": "import os, time\ndef test_a(): pass\ndef test_b(): os._exit(0)\n"
             "def test_c(): pass\ndef test_d(): time.sleep(99)\ndef test_e(): pass\n"}  # fmt: skip
    fresh = Fresh(auto.choose(root=tmp_path))
    names = [f"test_x.py::test_{c}" for c in "abc"]
    crashed = results(fresh, replace(job(*names), test_files=tests))
    assert [crashed[name].passed for name in names] == [True, False, True], crashed
    names = [f"test_x.py::test_{c}" for c in "de"]
    hung = results(fresh, replace(job(*names), test_files=tests), check_s=0.3)
    assert not any(result.passed for result in hung.values())
