"""Programs run as their users would run them: standard input, standard output, exit code."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palestra.rl.types import AppendedCheck, Check, CheckJob, CheckResult, ProgramCheck
from palestra.sandbox.bubblewrap import Bubblewrap
from palestra.sandbox.checks import Fresh, Runner
from palestra.sandbox.outputs import WHOLE, digest, matches
from palestra.sandbox.warm import Warm


@pytest.fixture(params=["fresh", "warm"])
def runner(request: pytest.FixtureRequest) -> Runner:
    backend = Bubblewrap()
    return Fresh(backend) if request.param == "fresh" else Warm(backend, spare=1)


def prints(number: int, stdin: str, *expected: str, **more: object) -> ProgramCheck:
    words = ("python3", "solution.py")
    return ProgramCheck(id=str(number), argv=words, stdin=stdin, expected=expected, **more)  # type: ignore[arg-type]


def ran(
    runner: Runner, text: str, *checks: Check, path: str = "solution.py", check_s: float = 1.0
) -> Sequence[CheckResult]:
    job = CheckJob(files={path: text}, checks=checks)
    return asyncio.run(runner.run([job], timeout=60.0, check_s=check_s))[0]


def test_programs(runner: Runner) -> None:
    adds = "import sys\na, b = map(int, input().split())\nprint(a + b, file=sys.stdout)\n"
    checks = (prints(0, "1 2\n", "3"), prints(1, "5 5", "11", "10\n\n"), prints(2, "1 1", "3"))
    found = ran(runner, adds, *checks)
    assert [(r.passed, r.got.strip()) for r in found] == [(True, "3"), (True, "10"), (False, "2")]
    # Right words, wrong end.
    [failed] = ran(runner, "print(3)\nraise ValueError('no')", prints(0, "", "3"))
    assert (failed.passed, failed.got) == (False, "exit code 1: ValueError: no")


def test_a_program_that_hangs_is_stopped_and_not_tried_again(runner: Runner) -> None:
    found = ran(runner, "while True: pass", prints(0, "", "1"), prints(1, "", "1"), check_s=0.3)
    assert [r.passed for r in found] == [False, False]
    assert found[0].got.startswith("no answer after") and found[1].got.startswith("not run")


def test_long_outputs_leave_the_box_as_digests(runner: Runner) -> None:
    lines = "".join(f"{number}\n" for number in range(WHOLE))
    prog = f"print(*range({WHOLE}), sep='  \\n')"
    good, bad = prints(0, "", lines, by_line=True), prints(1, "", lines + "7", by_line=True)
    assert [r.passed for r in ran(runner, prog, good, bad)] == [True, False]


@pytest.mark.parametrize(
    "text",
    [
        # What the first run leaves: a daemon that writes the answer into whatever it can open.
        "import glob, os, time\nif os.fork() == 0:\n    os.setsid()\n    while True:\n"
        "        for path in glob.glob('/proc/[0-9]*/fd/*'):\n            try:\n"
        "                open(path, 'w').write('3')\n            except OSError: pass\n",
        # The parent's memory, arguments and descriptors, and the folders beside its own.
        "import glob\nfor path in glob.glob('/proc/[0-9]*/[cem]*') + glob.glob('/tmp/*/*'):\n"
        "    try: print(open(path, errors='replace').read(1 << 16))\n    except Exception: pass\n",
        "import os\nos.kill(os.getppid(), 9)\n",
        "import os\nos.write(1, b'3' * (20 << 20))\n",
        "bytearray(3 << 30)\nprint(3)\n",
    ],
    ids=["daemon", "reads", "kills", "floods", "hogs"],
)
def test_hostile_programs_pass_nothing(runner: Runner, text: str) -> None:
    secret = "an expected output that no program could know 3"
    assert not any(r.passed for r in ran(runner, text, *(prints(n, "", secret) for n in range(3))))


def test_a_program_that_leaves_its_group_is_ended_as_any_other(runner: Runner) -> None:
    leaves = "import os\nos.setpgid(0, os.getpgid(os.getppid()))\nprint(input())\n"
    found = ran(runner, leaves, prints(0, "3", "3"), prints(1, "4", "4"))
    assert [r.got for r in found] == ["3\n", "4\n"]
    hangs = leaves + "while True: pass"
    [late] = ran(runner, hangs, prints(0, "3", "3"), check_s=0.3)
    assert late.got.startswith("no answer after")


NODE = {
    "argv": ("node", "s.js"),
    "path": "s.js",
    "wrong": "require('assert').deepEqual(1, 2)",
    "done": "require('fs').writeSync(1, 'TOKEN')",
}
BASH = {
    "argv": ("bash", "s.sh"),
    "path": "s.sh",
    "wrong": "[[ 1 = 2 ]] || exit 1",
    "done": "builtin printf %s TOKEN",
}


@pytest.mark.parametrize(
    ("language", "program", "test", "passed"),
    [
        (BASH, "inc() { echo $(($1 + 1)); }", "[[ $(inc 1) = 2 ]] || exit 1", True),
        (BASH, "inc() { echo 1; }", "[[ $(inc 1) = 2 ]] || exit 1", False),
        (BASH, "exit 0", "[[ $(inc 1) = 2 ]] || exit 1", False),
        (BASH, "exit() { :; }", "[[ $(inc 1) = 2 ]] || exit 1", False),
        (BASH, "trap 'builtin exit 0' EXIT", "[[ $(inc 1) = 2 ]] || exit 1", False),
        (NODE, "let inc = x => x + 1", "require('assert').deepEqual(inc(1), 2)", True),
        (NODE, "let inc = x => x", "require('assert').deepEqual(inc(1), 2)", False),
        (NODE, "process.exit(0)", "require('assert').deepEqual(inc(1), 2)", False),
        (
            NODE,
            "require('assert').deepEqual = () => {}; let inc = x => x",
            "require('assert').deepEqual(inc(1), 2)",
            False,
        ),
    ],
)
def test_code_of_other_languages(
    runner: Runner, language: dict[str, object], program: str, test: str, passed: bool
) -> None:
    interpreter = str(language["argv"][0])  # type: ignore[index]
    if not shutil.which(interpreter):
        pytest.skip(f"{interpreter} is not installed")
    check = AppendedCheck(id="0", code=test, **language)  # type: ignore[arg-type]
    [found] = ran(runner, program, check, path=str(language["path"]), check_s=3.0)
    assert found.passed is passed, found.got


WORDS = st.lists(st.text("ab1.", min_size=1, max_size=3), max_size=6)
SPACES = st.sampled_from([" ", "\n", "  ", " \n\n\t"])


@given(WORDS, SPACES, SPACES)
def test_white_space_does_not_count(words: list[str], left: str, right: str) -> None:
    one, two = left.join(words), right.join(words) + right
    assert matches(one, two, tolerance=0.0, by_line=False)
    assert digest(one, by_line=False) == digest(two, by_line=False)


@pytest.mark.parametrize(
    ("expected", "got", "tolerance", "same"),
    [
        ("0.5", "0.5000001", 1e-6, True),
        ("0.5", "0.51", 1e-6, False),
        ("1e9", "1000000100", 1e-6, True),
        # Whole numbers are exact, however large.
        ("1000000007", "1000000008", 1e-5, False),
        ("3", "3.0", 0.0, True),
        ("3", "3.1", 1.0, False),
        ("0.5", "nan", 1e9, False),
        ("YES", "yes", 1.0, False),
        ("1 2", "1", 1.0, False),
    ],
)
def test_numbers(expected: str, got: str, tolerance: float, same: bool) -> None:
    assert matches(expected, got, tolerance=tolerance, by_line=False) is same


def test_lines_count_where_a_benchmark_says_so() -> None:
    assert not matches("1 2", "1\n2", tolerance=0.0, by_line=True)
    assert matches("1 2\n3\n", "\n1  2 \n3", tolerance=0.0, by_line=True)
