"""Records of benchmarks as tasks: the shapes they are published in, and what is wrong with them."""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
import json
import pickle
import shutil
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palestra.envs import rows as module
from palestra.envs.concurrency import bounded
from palestra.envs.folders import exercise_files
from palestra.envs.formats import ROWS
from palestra.envs.lazy_source import entries
from palestra.envs.livecodebench import _unpickled, livecodebench_task
from palestra.envs.needs import Needs
from palestra.envs.quixbugs import quixbugs_task
from palestra.envs.rows import BadRow, Rows, read_rows
from palestra.envs.sources import load
from palestra.envs.stdin_records import apps_task, contest_task
from palestra.envs.task_json import task_from_json, task_to_json
from palestra.envs.taskset import LazyTasks, TaskSet
from palestra.envs.translated import translated_task
from palestra.rl.errors import SandboxError, UserError
from palestra.rl.types import CallCheck, ExecResult, Json, Outcome, ProgramCheck, Task
from palestra.sandbox.bubblewrap import Bubblewrap
from palestra.sandbox.checks import make_grader, run_checks
from palestra.sandbox.warm import Warm

PLUS = {
    "task_id": "HumanEval/0",
    "prompt": "def half(x):\n",
    "entry_point": "half",
    "canonical_solution": "    return x / 2\n",
    "contract": "    assert x != 7\n",
    "base_input": [[1], [2.5]],
    "plus_input": [[-3], [10**9]],
    "atol": 1e-6,
}
SHELL = {
    "name": "HumanEval_0_inc",
    "language": "sh",
    "prompt": "inc() {\n",
    "canonical_solution": "    echo $(($1 + 1))\n",
    "tests": "}\n[[ $(inc 1) = 2 ]] || exit 1\n",
}
CONTEST = {
    "name": "1_A. Sum",
    "description": "Add them.",
    "public_tests": {"input": ["1 2\n"], "output": ["3\n"]},
    "private_tests": {"input": ["5 5\n"], "output": ["10\n"]},
    "generated_tests": {"input": [], "output": []},
    "solutions": {
        "language": [2, 3],
        "solution": ["int main(){}", "print(sum(map(int, input().split())))"],
    },
    "time_limit": {"seconds": 1, "nanos": 500000000},
}
FUNCTION = {
    "problem_id": 3,
    "question": "Double it.",
    "starter_code": "class Solution:\n    def twice(self, x: int) -> int:\n",
    "input_output": json.dumps({"fn_name": "twice", "inputs": [[2], [0]], "outputs": [[4], [0]]}),
    "solutions": json.dumps(["class Solution:\n    def twice(self, x):\n        return 2 * x\n"]),
}
CLASS = {
    "task_id": "BigCodeBench/7",
    "complete_prompt": "import json\ndef task_func(x):\n",
    "canonical_solution": "    return json.dumps(x)",
    "entry_point": "task_func",
    "test": "import unittest\nclass TestCases(unittest.TestCase):\n    def test_list(self):\n"
    "        self.assertEqual(task_func([1]), '[1]')\n",
}


def live(**more: object) -> dict[str, object]:
    public = [{"input": "1 2", "output": "3", "testtype": "stdin"}]
    private = [{"input": "2 2", "output": "4\n", "testtype": "stdin"}]
    packed = base64.b64encode(zlib.compress(pickle.dumps(json.dumps(private)))).decode()
    return {
        "question_id": "abc",
        "question_content": "Add.",
        "starter_code": "",
        "public_test_cases": json.dumps(public),
        "private_test_cases": packed,
        "metadata": "{}",
        **more,
    }


@pytest.fixture(scope="module")
def graded() -> Any:
    """References and untouched files of a source's tasks, graded in real boxes."""
    backend = Bubblewrap()
    warm = Warm(backend, spare=1)
    grade = make_grader(warm, concurrency=1, check_s=5.0)

    def run(source: str, limit: int | None = None) -> list[tuple[str, bool, bool]]:
        async def work() -> list[tuple[str, bool, bool]]:
            tasks = await load(source, run_checks=run_checks, provider=backend, seed=0, limit=limit)
            assert not tasks.skipped, tasks.skipped
            found = []
            for task in tasks.tasks:
                both = [await grade(task, _bytes(files)) for files in (task.reference, task.files)]
                assert {verdict.outcome for verdict in both} == {Outcome.GRADED}
                found.append((task.id, *(verdict.solved for verdict in both)))
            return found

        return asyncio.run(work())

    yield run
    asyncio.run(warm.close())


def _bytes(files: Mapping[str, str]) -> dict[str, bytes]:
    return {path: text.encode() for path, text in files.items()}


def rows(folder: Path, *found: object) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in found))
    return path


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        ("humaneval", PLUS),
        ("humaneval", SHELL),
        ("codecontests", CONTEST),
        ("apps", FUNCTION),
        ("bigcodebench", CLASS),
    ],
)
def test_references_pass_and_nothing_fails(
    graded: Callable[..., list[tuple[str, bool, bool]]], tmp_path: Path, kind: str, row: object
) -> None:
    [(_, reference, nothing)] = graded(f"{kind}:{rows(tmp_path, row)}")
    assert reference and not nothing


def test_a_sample_of_the_published_sets(
    graded: Callable[..., list[tuple[str, bool, bool]]], data: Path
) -> None:
    practice = data / "exercism-python" / "practice"
    found = graded(f"exercism:{practice}", limit=2)
    found += graded(f"mbpp:{data}/mbpp/sanitized-mbpp.json", limit=5)
    assert len(found) == 7 and all(good and not nothing for _, good, nothing in found)
    for name in ("sqrt", "detect_cycle", "hanoi", "flatten"):
        task = quixbugs_task(data / "quixbugs", name)
        backend = Bubblewrap()
        grade = make_grader(backend, check_s=5.0)
        assert asyncio.run(grade(task, _bytes(task.reference))).solved, name
    contest = data / "codecontests-sample" / "code_eval_code_contests.jsonl"
    tasks = [contest_task(row) for _, row in read_rows(contest) if isinstance(row, dict)]
    assert len(tasks) == 20 and not any(task.reference for task in tasks)


def test_what_a_contest_problem_becomes() -> None:
    task = contest_task(CONTEST)
    assert task.id == "CodeContests/1_A. Sum" and task.check_s == pytest.approx(4.5)
    assert task.reference["solution.py"].startswith("print(")
    first, second = task.hidden
    assert task.visible == (first,) and isinstance(second, ProgramCheck)
    assert (second.stdin, second.expected) == ("5 5\n", ("10\n",))
    # Several outputs that are all right, and the list of pairs that other copies have.
    pairs = [
        {"input": "1", "output": ["a", "b"]},
        {"input": {"stdin": "2"}, "output": {"stdout": "c"}},
    ]
    accepted = [getattr(c, "expected", ()) for c in contest_task({**CONTEST, "test": pairs}).hidden]
    assert accepted[2:] == [("a", "b"), ("c",)]


def test_a_test_may_use_what_the_reference_imports() -> None:
    code = "import sys\nimport re\ndef size(x):\n    return sys.getsizeof(x)\n"
    row = {
        "task_id": 1,
        "text": "x",
        "code": code,
        "test_list": ["assert size(1) == sys.getsizeof(1)"],
    }
    [check] = ROWS["mbpp"](row).hidden
    assert getattr(check, "names", ()) == ("size",)
    assert getattr(check, "code", "").startswith("import sys\nassert")


def test_functions_of_apps_and_livecodebench() -> None:
    [first, _] = apps_task(FUNCTION).hidden
    assert isinstance(first, CallCheck)
    assert (first.function, first.args, first.expected) == ("Solution().twice", "(2,)", "4")
    tests = [{"input": '[1, 2]\n"x"', "output": "true", "testtype": "functional"}]
    row = live(
        public_test_cases=json.dumps(tests),
        private_test_cases="[]",
        starter_code="class Solution:\n    def f(self, xs: List[int], s: str) -> bool:\n",
        metadata=json.dumps({"func_name": "f"}),
    )
    task = livecodebench_task(row)
    [check] = task.hidden
    assert isinstance(check, CallCheck) and check.function == "Solution().f"
    assert (check.args, check.expected) == ("([1, 2], 'x')", "True")
    assert "from typing import *" in task.labels["code_prompt"]


def test_packed_tests_are_read_but_never_run(tmp_path: Path) -> None:
    task = livecodebench_task(live())
    assert [getattr(c, "expected", ()) for c in task.hidden] == [("3",), ("4\n",)]
    assert len(task.visible) == 1
    values: list[object] = ["a", 3, [1, {"b": ["c"], "d": None}], {"x" * 300: True}, 1 << 40]
    for value in values:
        for protocol in (2, 3, 4, 5):
            assert _unpickled(pickle.dumps(value, protocol)) == value

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (exec, (f"open({str(tmp_path / 'owned')!r}, 'w')",))

    for value in (Evil(), [Evil()], {"a": Evil()}, b"bytes", (1, 2), 1.5, {1}):
        packed = base64.b64encode(zlib.compress(pickle.dumps(value))).decode()
        with pytest.raises(BadRow, match="refused"):
            livecodebench_task(live(private_test_cases=packed))
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("kind", "row", "said"),
    [
        ("humaneval", {**SHELL, "language": "cobol"}, "programs in 'cobol' cannot be run"),
        ("humaneval", {**PLUS, "atol": "x"}, "field atol"),
        ("humaneval", {**PLUS, "plus_input": [1]}, "field plus_input"),
        ("humaneval", {**PLUS, "entry_point": "x y"}, "field entry_point"),
        ("codecontests", {**CONTEST, "input_file": "in.txt"}, "field input_file"),
        ("codecontests", {**CONTEST, "public_tests": {"input": [1]}}, "field public_tests"),
        ("codecontests", {"id": 1, "content": "x"}, "no tests"),
        ("codecontests", {**CONTEST, "time_limit": 1e9}, "field time_limit"),
        ("apps", {**FUNCTION, "input_output": "{"}, "field input_output: not JSON"),
        (
            "apps",
            {
                **FUNCTION,
                "input_output": {"inputs": [[float("inf")]], "outputs": [1], "fn_name": "f"},
            },
            "no literal",
        ),
        ("livecodebench", live(private_test_cases="%%"), "neither JSON nor Base64"),
        (
            "livecodebench",
            live(
                metadata="[]",
                public_test_cases='[{"testtype": "functional", "input": "", "output": ""}]',
            ),
            "not stdin or functional",
        ),
        ("bigcodebench", {**CLASS, "test": "x = 1"}, "no unittest methods"),
    ],
)
def test_bad_rows_are_named(kind: str, row: Mapping[str, Json], said: str) -> None:
    with pytest.raises(BadRow, match=said):
        ROWS[kind](row)


def test_rows_that_a_box_cannot_run_are_named(tmp_path: Path) -> None:
    needy = {**CLASS, "task_id": "b", "canonical_solution": "    import no_such_package_here"}
    php = {**SHELL, "language": "php"}
    for kind, row, lacking in (
        ("bigcodebench", needy, "python:no_such_package_here"),
        ("humaneval", {**php, "name": "p"}, "php"),
    ):
        source = f"{kind}:{rows(tmp_path, row)}"
        made = asyncio.run(load(source, run_checks=run_checks, provider=Bubblewrap(), seed=0))
        reasons = [item.reason for item in made.skipped]
        if shutil.which(lacking):
            continue
        assert len(reasons) == 1 and reasons[0].endswith(f"the box has no {lacking}")


def test_a_box_that_does_not_say_what_it_has_is_a_fault_of_ours() -> None:
    class Silent:
        @asynccontextmanager
        async def open(self) -> AsyncIterator[Any]:
            yield self

        async def exec(self, words: Sequence[str]) -> ExecResult:
            return ExecResult(timed_out=True)

    provider: Any = Silent()
    with pytest.raises(SandboxError, match="whether it has bash"):
        asyncio.run(Needs(provider).lacking(translated_task(SHELL)))


def test_new_kinds_of_checks_survive_storage() -> None:
    for task in (contest_task(CONTEST), translated_task(SHELL)):
        assert task_from_json(json.loads(json.dumps(task_to_json(task)))) == task


def test_what_tests_of_an_exercise_import_is_theirs(graded: Any, tmp_path: Path) -> None:
    texts = {
        ".meta/config.json": json.dumps(
            {"files": {"solution": ["one.py"], "test": ["one_test.py"], "example": [".meta/e.py"]}}
        ),
        ".meta/e.py": "def one():\n    return 1\n",
        ".docs/instructions.md": "Return one.\n",
        "one.py": "def one():\n    pass\n",
        "one_test.py": "import unittest\nfrom one import one\nfrom helper import ONE\n"
        "class T(unittest.TestCase):\n    def test_one(self): self.assertEqual(one(), ONE)\n",
        "helper.py": "ONE = 1\n",
    }
    for path, text in texts.items():
        (tmp_path / "one" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "one" / path).write_text(text)
    assert graded(f"exercism:{tmp_path}") == [("exercism/one", True, False)]


def test_an_exercise_reads_nothing_outside_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "secret.py").write_text("x = 1\n")
    folder = tmp_path / "leap"
    (folder / ".meta").mkdir(parents=True)
    (folder / "link.py").symlink_to(tmp_path / "secret.py")
    odd = (
        "../secret.py",
        str(tmp_path / "secret.py"),
        "link.py",
        ".",
        "",
        "\0",
        "\ud800",
        "x" * 999,
    )
    for name in odd:
        files = {"solution": [name], "test": [], "example": [name]}
        (folder / ".meta" / "config.json").write_text(json.dumps({"files": files}))
        with pytest.raises(BadRow):
            exercise_files(folder)


EXERCISE = {
    ".meta/config.json": '{"files": {"solution": ["a.py"], "test": ["a_test.py"],'
    ' "example": [".meta/b.py"]}}',
    ".meta/b.py": "",
    ".docs/instructions.md": "Do it.",
    "a.py": "",
    "a_test.py": "import unittest\nclass T(unittest.TestCase):\n    def test_a(self): pass\n",
}
SETS = {
    "exercism": {f"p/{path}": text for path, text in EXERCISE.items()},
    "quixbugs": {
        "python_programs/p.py": "",
        "correct_python_programs/p.py": "",
        "python_testcases/test_p.py": "def test_p():\n    assert p(1)\n",
        "python_testcases/node.py": "",
    },
    "apps": {
        "p/question.txt": "Add.",
        "p/input_output.json": json.dumps({"inputs": ["1"], "outputs": ["2"]}),
        "p/solutions.json": "[]",
    },
}


@pytest.mark.parametrize("kind", SETS)
def test_no_link_leads_out_of_a_data_set(kind: str, tmp_path: Path) -> None:
    """Whatever of a set lies outside of it is refused by name: each file, and each folder."""
    inside = tmp_path / "set"
    folders = {part for path in SETS[kind] for part in Path(path).parents if part.name}
    for number, place in enumerate(["", *SETS[kind], *map(str, folders)]):
        for path, text in SETS[kind].items():
            (inside / path).parent.mkdir(parents=True, exist_ok=True)
            (inside / path).write_text(text)
        if place:
            (inside / place).rename(tmp_path / f"{number}")
            (inside / place).symlink_to(tmp_path / f"{number}")
        [(name, _, made)] = entries(kind, inside).tries
        if place:
            with pytest.raises(BadRow, match="leads out of"):
                made()
        else:
            assert name == "p" and made().hidden
        shutil.rmtree(inside)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
SAMPLES: Mapping[str, list[Mapping[str, object]]] = {
    "humaneval": [PLUS, SHELL],
    "mbpp": [
        PLUS,
        {"task_id": 1, "text": "x", "code": "def f(): pass", "test_list": ["assert f()"]},
    ],
    "codecontests": [CONTEST],
    "apps": [FUNCTION],
    "livecodebench": [live()],
    "bigcodebench": [CLASS],
    "math": [{"question": "x", "answer": "2"}, {"problem": "x", "solution": r"so \boxed{2}"}],
    "jsonl": [task_to_json(contest_task(CONTEST)), task_to_json(translated_task(SHELL))],
}


@pytest.mark.parametrize("kind", ROWS)
@settings(max_examples=40)
@given(st.data())
def test_a_damaged_row_is_a_bad_row_or_a_task(kind: str, data: st.DataObject) -> None:
    row = dict(data.draw(st.sampled_from(SAMPLES[kind])))
    for name in data.draw(st.lists(st.sampled_from(sorted(row)), max_size=3)):
        row[name] = data.draw(JSON)
    try:
        task = ROWS[kind](row)
    except BadRow as error:
        assert "\n" not in str(error)[:200]
        return
    assert isinstance(task, Task) and task.hidden
    paths = [*task.files, *task.reference, *task.artifacts, *task.test_files]
    assert not any(path.startswith("/") or ".." in path.split("/") for path in paths)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_plain(data: bytes) -> None:
    try:
        _unpickled(data)
    except BadRow as error:
        assert str(error).startswith("field private_test_cases: refused")


@given(st.lists(st.one_of(st.integers(), st.text(), st.dictionaries(st.text(), st.integers()))))
def test_a_json_array_is_read_piece_by_piece(items: list[object]) -> None:
    for size in (1, 3, 1 << 20):
        whole = module._CHUNK
        module._CHUNK = size
        try:
            found = list(module._array(Path("x.json"), io.StringIO(json.dumps(items, indent=1))))
        finally:
            module._CHUNK = whole
        assert found == items


def test_large_files_are_never_in_memory(world: Any, tmp_path: Path) -> None:
    row = {
        "task_id": 0,
        "text": "x" * 2000,
        "code": "def f():\n    return 1\n",
        "test_list": ["assert f()"],
    }
    path = tmp_path / "large.jsonl"
    count = 4000
    with path.open("w") as file:
        for number in range(count):
            bad = number % 1000 == 7
            file.write(f"{json.dumps({**row, 'task_id': [] if bad else number})}\n")
    tracemalloc.start()
    try:
        work = load(f"mbpp:{path}", run_checks=world.run_checks, provider=world.provider, seed=0)
        made = asyncio.run(work)
        ids = [task.id for task in made.tasks]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(ids) == count - 4 and made.tasks[-1].id == f"MBPP/{count - 1}"
    named = [f"large.jsonl row {number}" for number in (8, 1008, 2008, 3008)]
    assert [item.id for item in made.skipped] == named
    assert peak < path.stat().st_size / 2, "the rows themselves are kept"


def test_lazy_tasks_are_a_sequence_like_any_other() -> None:
    made: list[int] = []

    def make(key: int) -> Task:
        made.append(key)
        split = "train" if key % 2 else "test"
        return replace(contest_task(CONTEST), id=str(key), labels={"split": split})

    lazy = LazyTasks(range(10), make)
    plain = tuple(lazy)
    assert len(lazy) == 10 and lazy[-1] == plain[-1]
    assert made == list(range(10))  # the last ones are remembered
    assert tuple(lazy[2:7:2]) == plain[2:7:2]
    with pytest.raises(IndexError):
        lazy[10]
    tasks = TaskSet(source="x", env="y", tasks=lazy)
    assert tasks.splits == {"test": 5, "train": 5}
    assert [task.id for task in tasks.split("train")] == ["1", "3", "5", "7", "9"]


def test_items_are_taken_when_their_turn_comes() -> None:
    taken: list[int] = []
    done: list[int] = []

    def items() -> Iterator[int]:
        for number in range(9):
            taken.append(number)
            yield number

    async def work(number: int) -> int:
        assert len(taken) - len(done) <= 2
        await asyncio.sleep(0)
        done.append(number)
        return number * 2

    assert asyncio.run(bounded(work, items(), 2)) == [number * 2 for number in range(9)]


def test_a_source_that_changes_while_it_is_in_use_is_named(tmp_path: Path) -> None:
    path = rows(tmp_path, CONTEST)
    tasks = asyncio.run(
        load(f"codecontests:{path}", run_checks=run_checks, provider=Bubblewrap(), seed=0)
    ).tasks
    for text in ("{", "{}"):
        path.write_text(text)
        with pytest.raises(UserError, match="was changed while it was in use"):
            tasks[0]


def test_rows_of_every_kind_of_file_are_found_again(tmp_path: Path) -> None:
    found = [{"a": number, "b": "ü" * number} for number in range(5)]
    lines = "".join(f"{json.dumps(row)}\n" for row in found)
    (tmp_path / "x.jsonl").write_text(f"\n{lines}{{cut")
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "x.json").write_text(json.dumps(found, indent=2))
    for name in ("x.jsonl", "x.jsonl.gz", "x.json"):
        rows = Rows(tmp_path / name)
        places: list[int] = []
        for _, place, row in rows:
            if not isinstance(row, BadRow):
                places.append(place)
                assert rows[places[0]] == found[0]  # asked for before the others are read
        assert [rows[place] for place in reversed(places)] == found[::-1]
