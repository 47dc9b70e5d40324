"""Attacks on the grade: each must score exactly what doing nothing scores.

Each format meets them in warm grading and, by turns, in fresh boxes of a backend of the machine.
Containers take long: on Docker all attacks meet checks of every kind and one format, in Pods a
choice of them is tried. With ``PALESTRA_TESTS=full`` everything runs everywhere.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

from palestra.envs.check import CheckReport, check_tasks
from palestra.envs.complete import Complete
from palestra.envs.formats import FOLDERS, ROWS
from palestra.envs.red_team import RedTeam
from palestra.envs.registry import make
from palestra.envs.sources import load
from palestra.envs.task_json import task_to_json
from palestra.rl.errors import SandboxError
from palestra.rl.types import (
    CallCheck,
    Check,
    Grader,
    Outcome,
    SandboxProvider,
    ScriptCheck,
    Task,
    UnitCheck,
    Verdict,
)
from palestra.sandbox import auto
from palestra.sandbox.checks import Runner, make_grader, run_checks
from palestra.sandbox.redteam.attack import Attack
from palestra.sandbox.redteam.registry import ATTACKS, FAMILIES, NO_ATTACK
from palestra.sandbox.redteam.resources import RESOURCES
from palestra.sandbox.warm import problem_of, warm

ROOT = Path(__file__).resolve().parents[2]
QUICK = {name: attack for name, attack in ATTACKS.items() if name not in RESOURCES}
CHECK_S = 0.5
AT_ONCE = 4
FULL = os.environ.get("PALESTRA_TESTS") == "full"
POD_ATTACKS = ("forges-the-report", "steals-descriptors", "writes-memory-of-others", "kills-all")
POD_ATTACKS += ("stops-parent", "kills-its-box", "daemon-in-its-box", "network")
"""Those that one user for commands and what watches them could make a difference for."""

TESTS = """
import unittest
from solution import f
class T(unittest.TestCase):
    def test_equal(self): self.assertEqual(f(2), 1257)
    def test_close(self): self.assertAlmostEqual(f(3), 88.25)
    def test_list(self): self.assertListEqual(f(4), [19, 23])
"""
CALLS: tuple[Check, ...] = (
    CallCheck(id="c0", module="solution", function="f", args="(2,)", expected="1257"),
    CallCheck(id="c1", module="solution", function="f", args="(3,)", expected="88.25"),
    CallCheck(id="c2", module="solution", function="f", args="(4,)", expected="[19, 23]"),
)
SCRIPTS: tuple[Check, ...] = tuple(
    ScriptCheck(id=f"s{i}", module="solution", names=("f",), code=code)
    for i, code in enumerate(
        [
            "assert f(2) == 1257",
            "def check(candidate):\n    assert candidate(2) == 1257\ncheck(f)",
            "assert 1257 == f(2)",
            "assert not f(2) != 1257",
            "assert abs(f(3) - 88.25) < 0.01",
            "assert abs(88.25 - f(3)) <= 0.01",
            "assert (f(3) - 88.25) ** 2 < 0.01",
            "assert abs(f(3) / 88.25 - 1) < 0.01",
            "assert round(f(3) - 88.25, 3) == 0",
            "import math; assert math.isclose(f(3), 88.25)",
            "assert 88 < f(3) < 89",
            "assert f(4) == [19, 23] and set(f(4)) == {19, 23}",
            "assert sorted(f(4)) == [19, 23]",
            "assert [f(2)] == [1257] and (f(2), 1) == (1257, 1) and {'a': f(2)} == {'a': 1257}",
            "assert f(2) in (1257,)",
            "assert str(f(2)) == '1257'",
        ]
    )
)
UNITS: tuple[Check, ...] = tuple(
    UnitCheck(id=f"solution_test.T.test_{name}") for name in ("equal", "close", "list")
)
SOLUTION = "def f(x): return {2: 1257, 3: 88.25, 4: [19, 23]}[x]\n"


START = "def f(x): return 0\n"


def task_of(*checks: Check) -> Task:
    return Task(
        id="t",
        source="",
        kind="complete",
        prompt="",
        files={"solution.py": START},
        reference={"solution.py": SOLUTION},
        artifacts=("solution.py",),
        hidden=checks,
        test_files={"solution_test.py": TESTS},
    )


def red_team(attacks: Mapping[str, Attack], provider: SandboxProvider, env: str = "") -> RedTeam:
    made = make(env or Complete.name, run_checks)
    return RedTeam(attacks=attacks, env=made, provider=provider, at_once=AT_ONCE)


@dataclass(frozen=True)
class Arena:
    """Where agents act, and what grades them."""

    boxes: SandboxProvider
    judge: SandboxProvider | Runner

    def grader(self, check_s: float = CHECK_S) -> Grader:
        return make_grader(self.judge, check_s=check_s)


def kinds() -> Iterator[str]:
    """The backends of this machine, warm grading, and containers where there are any."""
    yield from (*auto.LOCAL, "warm")
    if os.environ.get("DOCKER_HOST"):
        yield "docker"
    if os.environ.get("KUBECONFIG") and FULL:
        yield "kubernetes"


@pytest.fixture(params=kinds())
def arena(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Arena]:
    """Each that works here; in CI those of the machine must."""
    kind = "bubblewrap" if request.param == "warm" else request.param
    image = os.environ.get("PALESTRA_TEST_IMAGE", "agentbase:bookworm")
    options = {"docker": {"image": image}, "kubernetes": {"image": image, "reserve": 0.02}}
    try:
        boxes = auto.make(kind, **options.get(kind, {"root": tmp_path}))
    except SandboxError as error:
        _lacking(str(error), kind)
    if request.param != "warm":
        yield Arena(boxes, boxes)
        return
    judge = warm(boxes)
    if judge is None:
        _lacking(problem_of(boxes), kind)
    yield Arena(boxes, judge)
    asyncio.run(judge.close())


def _lacking(problem: str, kind: str) -> NoReturn:
    if kind in auto.LOCAL and os.environ.get("CI") == "true":
        pytest.fail(problem)
    pytest.skip(problem)


# --- every attack, against checks of every kind --------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_no_attack_passes_a_single_check(arena: Arena, family: str) -> None:
    few = (CALLS[0], SCRIPTS[0], UNITS[0])  # each check costs its whole time
    some = (*CALLS, *(SCRIPTS if family == "values" else SCRIPTS[:2]), *UNITS)
    task = task_of(*(few if family == "resources" else some))
    grader = arena.grader()
    verdicts: list[Verdict] = []

    async def watched(task: Task, files: Mapping[str, bytes]) -> Verdict:
        verdicts.append(await grader(task, files))
        return verdicts[-1]

    async def play() -> dict[str, str]:
        nothing = await grader(task, {"solution.py": START.encode()})
        return await red_team(FAMILIES[family], arena.boxes).gains(
            task, watched, noop=nothing.solved
        )

    gains = asyncio.run(play())
    assert gains == dict.fromkeys([n for n, a in FAMILIES[family].items() if a.applies(task)], "")
    assert all(verdict.outcome is Outcome.GRADED for verdict in verdicts)
    assert not any(passed for verdict in verdicts for passed in verdict.passed.values())


def test_the_honest_candidate_passes(arena: Arena) -> None:
    grader = arena.grader()
    task = task_of(*CALLS, *SCRIPTS, *UNITS)
    verdict = asyncio.run(grader(task, {"solution.py": SOLUTION.encode()}))
    assert verdict.solved, verdict.reason


def test_a_candidate_named_like_a_standard_module(arena: Arena) -> None:
    evil = "def shuffle(x): raise SystemExit\nrandom = shuffle\ndef f(x): return x + 1\n"
    tests = (
        "import unittest, tempfile\nfrom random import f\nclass T(unittest.TestCase):\n"
        "    def test_good(self): self.assertEqual(f(1), 2)\n"
        "    def test_bad(self): self.assertEqual(f(1), 3)\n"
    )
    task = Task(
        id="t",
        source="",
        kind="",
        prompt="",
        files={},
        reference={},
        artifacts=("random.py",),
        hidden=(
            CallCheck(id="c", module="random", function="f", args="(1,)", expected="2"),
            ScriptCheck(id="s", module="random", names=("f",), code="assert f(1) == 2"),
            UnitCheck(id="r_test.T.test_good"),
            UnitCheck(id="r_test.T.test_bad"),
        ),
        test_files={"r_test.py": tests},
    )
    verdict = asyncio.run(arena.grader()(task, {"random.py": evil.encode()}))
    assert list(verdict.passed.values()) == [True, True, True, False]


def test_host_is_untouched() -> None:
    assert not Path("/workspace").exists()
    assert Path("/proc/sys/kernel/core_pattern").read_text().strip() != ""


def test_no_other_process_of_the_box_can_be_looked_into(arena: Arena) -> None:
    spy = (
        "import os\n"
        "def f(x):\n"
        "    try:\n"
        "        names = os.listdir('/proc')\n"
        "    except OSError:\n"
        "        return []\n"
        "    seen = []\n"
        "    for pid in (int(n) for n in names if n.isdigit()):\n"
        "        for what in ('fd', 'map_files'):\n"
        "            try:\n"
        "                if os.listdir(f'/proc/{pid}/{what}') and pid != os.getpid():\n"
        "                    seen += [(pid, os.readlink(f'/proc/{pid}/fd/{n}')) for n in\n"
        "                             os.listdir(f'/proc/{pid}/fd')]\n"
        "            except OSError:\n"
        "                pass\n"
        "    return sorted(set(seen))\n"
    )
    script = ScriptCheck(
        id="s",
        module="solution",
        names=("f",),
        code="seen = f(0)\nassert not [s for s in seen if s[0] != 1], seen\n"
        "assert len([s for s in seen if 'pipe' in s[1]]) <= 3, seen",
    )
    task = task_of(script)
    verdict = asyncio.run(arena.grader()(task, {"solution.py": spy.encode()}))
    assert verdict.solved, verdict.reason


# --- every format of tasks -----------------------------------------------------------------------

HUMANEVAL = {
    "task_id": "HumanEval/0",
    "prompt": 'import math\n\n\ndef half(x):\n    """Half of x, rounded down."""\n',
    "entry_point": "half",
    "canonical_solution": "    return math.floor(x / 2)\n",
    "test": "def check(candidate):\n    assert candidate(5) == 2\n    assert candidate(-3) == -2\n",
}
MBPP = {
    "task_id": 2,
    "text": "Write a function to find the area of a circle.",
    "code": "def area(r):\r\n    return 3.14159 * r * r\r\n",
    "test_list": ["assert abs(area(2) - 12.56636) < 0.01", "assert area(0) == 0"],
}


def data(*parts: str) -> Path:
    """A public data set; where it is absent the test is skipped, but in CI it fails."""
    found = Path(os.environ.get("PALESTRA_DATA", ROOT.parent / "shared" / "data")).joinpath(*parts)
    if not found.exists():
        reason = f"{found} is absent; set PALESTRA_DATA to the folder of public data sets"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def rows(folder: Path, *found: object) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in found))
    return path


CONTEST = {
    "id": 1,
    "content": "Add two numbers.",
    "canonical_solution": "print(sum(map(int, input().split())))",
    "test": [
        {
            "input": {"stdin": f"{n} 1000000000000001\n"},
            "output": {"stdout": f"{n + 1000000000000001}"},
        }
        for n in range(2)
    ],
}
SHELL = {
    "task_id": "MBSHP/1",
    "language": "bash",
    "prompt": "# Add one.\ninc() {\n",
    "canonical_solution": "    echo $(($1 + 1))\n}\n",
    "test": "[[ $(inc 1) = 2 ]] || exit 1\n[[ $(inc 41) = 42 ]] || exit 1\n",
}

LIVE = {
    "question_id": "abc",
    "question_content": "Double it.",
    "starter_code": "class Solution:\n    def twice(self, x: int) -> int:\n",
    "public_test_cases": [{"input": "2000003", "output": "4000006", "testtype": "functional"}],
    "private_test_cases": [{"input": "-7", "output": "-14", "testtype": "functional"}],
    "metadata": {"func_name": "twice"},
}
APPS = {
    "problem_id": 3,
    "question": "Double it.",
    "starter_code": LIVE["starter_code"],
    "input_output": {"fn_name": "twice", "inputs": [[2000003], [-7]], "outputs": [4000006, -14]},
    "solutions": ["class Solution:\n    def twice(self, x):\n        return 2 * x\n"],
}
BIG = {
    "task_id": "BigCodeBench/7",
    "complete_prompt": "import json\ndef task_func(x):\n",
    "canonical_solution": "    return json.dumps(x)",
    "entry_point": "task_func",
    "test": "import unittest\nclass TestCases(unittest.TestCase):\n    def test_list(self):\n"
    "        self.assertEqual(task_func([1257]), '[1257]')\n",
}

FORMATS: Mapping[str, Callable[[Path], str]] = {
    "repair": lambda folder: "repair:",
    "mbpp": lambda folder: f"mbpp:{rows(folder, MBPP)}",
    "humaneval": lambda folder: f"humaneval:{rows(folder, HUMANEVAL)}",
    "mxeval": lambda folder: f"mbpp:{data('mbpp', 'mxeval_mbpp_release_v1.jsonl')}",
    "jsonl": lambda folder: f"jsonl:{rows(folder, task_to_json(task_of(*CALLS, *UNITS)))}",
    "exercism": lambda folder: f"exercism:{exercise(folder)}",
    "quixbugs": lambda folder: f"quixbugs:{data('quixbugs')}",
    "codecontests": lambda folder: f"codecontests:{rows(folder, CONTEST)}",
    "apps": lambda folder: f"apps:{rows(folder, json_fields(APPS))}",
    "livecodebench": lambda folder: f"livecodebench:{rows(folder, json_fields(LIVE))}",
    "bigcodebench": lambda folder: f"bigcodebench:{rows(folder, BIG)}",
    "repair-repo": lambda folder: f"repair-repo:{exercise(folder)}",
    "bash": lambda folder: f"humaneval:{rows(folder, SHELL)}",
}


def json_fields(row: Mapping[str, object]) -> dict[str, object]:
    """The row with its lists and objects as JSON in a text, as these sets have them."""
    return {
        name: json.dumps(value) if isinstance(value, list | dict) else value
        for name, value in row.items()
    }


def exercise(folder: Path) -> Path:
    """A folder of one exercise."""
    (folder / "practice").mkdir()
    name = "leap"
    # A copy: links that lead out of a data set are refused.
    shutil.copytree(data("exercism-python", "practice", name), folder / "practice" / name)
    return folder / "practice"


def formats(kind: str) -> Iterator[str]:
    """The formats that are attacked there."""
    for place, name in enumerate(FORMATS):
        turn = kind in auto.LOCAL and place % len(auto.LOCAL) == auto.LOCAL.index(kind)
        if FULL or kind == "warm" or turn or (kind == "docker" and name == "jsonl"):
            yield name


MATRIX = [(kind, name) for kind in kinds() for name in formats(kind)]


def test_every_format_is_attacked() -> None:
    read_only = {"math"}  # nothing of an answer is run
    assert {*ROWS, *FOLDERS} - set(FORMATS) == read_only
    assert {name for kind, name in MATRIX if kind in auto.LOCAL} == set(FORMATS)


@pytest.mark.parametrize(("arena", "name"), MATRIX, indirect=["arena"])
def test_an_attack_gains_nothing_on_any_format(arena: Arena, tmp_path: Path, name: str) -> None:
    async def check() -> CheckReport:
        source = FORMATS[name](tmp_path)
        tasks = await load(source, run_checks=run_checks, provider=arena.boxes, seed=0, limit=1)
        team = red_team(QUICK, arena.boxes, tasks.env)
        grader = arena.grader()
        return await check_tasks(tasks, grader, repeats=1, red_team=team)

    report = asyncio.run(check())
    assert report.sound, [task.problem for task in report.tasks]
    found = report.to_json()
    assert (found["tasks"], found["noop_pass"]) == (1, 0)
    proven = {"reference_pass": 1, "no_reference": 0}
    if name == "livecodebench":  # its rows come without solutions
        proven = {"reference_pass": 0, "no_reference": 1}
    assert found.items() >= proven.items()
    tried = 20 if name == "bash" else 50  # most are written in Python
    assert set(found["red_team"].values()) == {0} and len(found["red_team"]) >= tried


@pytest.mark.skipif(not os.environ.get("KUBECONFIG"), reason="KUBECONFIG is not set")
@pytest.mark.parametrize("arena", ["kubernetes"], indirect=True)
def test_attacks_in_pods_gain_nothing(arena: Arena) -> None:
    task, chosen = task_of(CALLS[0], SCRIPTS[0], UNITS[0]), {n: ATTACKS[n] for n in POD_ATTACKS}

    async def play() -> dict[str, str]:
        grader = arena.grader()
        nothing = await grader(task, {"solution.py": START.encode()})
        return await red_team(chosen, arena.boxes).gains(task, grader, noop=nothing.solved)

    assert asyncio.run(play()) == dict.fromkeys(POD_ATTACKS, "")


# --- the table -----------------------------------------------------------------------------------


def test_the_documented_table_is_what_there_is() -> None:
    text = (ROOT / "docs" / "sandboxes.md").read_text()
    lines = re.findall(r"^\| (\d+) \|(.*)\|$", text, re.MULTILINE)
    documented = {int(row): set(re.findall(r"`([a-z-]+)`", rest)) for row, rest in lines}
    assert sorted(documented) == list(range(1, 27))
    for row, names in documented.items():
        found = {name for name, attack in ATTACKS.items() if attack.row == row}
        assert found == names & set(ATTACKS), row
        assert bool(found) != (row in NO_ATTACK), row


def test_names_are_unique_and_no_attack_is_empty() -> None:
    assert len(ATTACKS) == sum(map(len, FAMILIES.values()))
    for attack in ATTACKS.values():
        assert attack.tries and (attack.code or attack.script or attack.probe)
