"""Harbor task directories: read, graded in fresh boxes, written and read back."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palestra.envs.check import CheckReport, check_tasks
from palestra.envs.files import work_of
from palestra.envs.harbor import judged_by
from palestra.envs.harbor_dockerfile import layout
from palestra.envs.harbor_env import Harbor
from palestra.envs.harbor_export import export, task_directory
from palestra.envs.harbor_files import VerifierTable, task_toml
from palestra.envs.records import mbpp_task
from palestra.envs.red_team import RedTeam
from palestra.envs.rows import BadRow
from palestra.envs.sources import load
from palestra.envs.task_json import task_from_json, task_to_json
from palestra.envs.taskset import TaskSet
from palestra.rewards.score import Scheme, score
from palestra.rl.errors import UserError
from palestra.rl.types import (
    CallCheck,
    File,
    Grader,
    Image,
    Outcome,
    SandboxProvider,
    SuiteCheck,
    Task,
    Tree,
    Verdict,
    VerifierCheck,
)
from palestra.sandbox import auto
from palestra.sandbox.checks import make_grader, run_checks
from palestra.sandbox.redteam.registry import ATTACKS
from palestra.sandbox.verifier import rewards_in, verifying

SOUND: Mapping[str, str] = {
    "task.toml": 'version = "1.0"\nnew_key = 1\n[environment]\nenv = { GREET = "${G:-hi}" }\n'
    "[verifier]\ntimeout_sec = 20.0\nenv = { WANTED = '5' }\n",
    "instruction.md": "Write 5 into five.txt.\n",
    "environment/Dockerfile": "FROM ubuntu:24.04\nRUN apt-get update && \\\n  apt-get install -y "
    "bash\nENV A=1\nWORKDIR /app\nCOPY in/ ./\n",
    "environment/in/start.txt": "4\n",
    "tests/test.sh": '[ "$A$GREET" = 1hi ] || exit 1\n'
    'python3 /tests/judge.py "$WANTED" > /logs/verifier/reward.json\n',
    "tests/judge.py": "import json, sys\nfrom pathlib import Path\n"
    "found = Path('five.txt').read_text().strip() if Path('five.txt').exists() else ''\n"
    "print(json.dumps({'right': float(found == sys.argv[1]), 'short': len(found) < 2}))\n",
    "solution/solve.sh": "#!/bin/bash\necho $(( $(cat start.txt) + 1 )) > five.txt\n",
}


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> SandboxProvider:
    return auto.choose(root=tmp_path_factory.mktemp("boxes"))


@pytest.fixture(scope="module")
def grade(boxes: SandboxProvider) -> Grader:
    return verifying(make_grader(boxes), boxes)


def written(folder: Path, **changes: str | None) -> Path:
    for path, text in {**SOUND, **{k.replace("__", "/"): v for k, v in changes.items()}}.items():
        if text is not None:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
    return folder


def loaded(folder: Path, boxes: SandboxProvider) -> TaskSet:
    made = load(f"harbor:{folder}", run_checks=run_checks, provider=boxes, seed=0)
    return asyncio.run(made)


def checked(tasks: TaskSet, grade: Grader, boxes: SandboxProvider, *attacks: str) -> CheckReport:
    chosen = {name: ATTACKS[name] for name in attacks}
    team = RedTeam(attacks=chosen, env=Harbor(run_checks), provider=boxes) if attacks else None
    return asyncio.run(check_tasks(tasks, grade, red_team=team, repeats=1))


def test_a_verifier_judges_with_several_rewards(
    tmp_path: Path, boxes: SandboxProvider, grade: Grader, make_trajectory: Any
) -> None:
    tasks = loaded(written(tmp_path / "five"), boxes)
    (task,) = tasks.tasks
    assert (task.id, tasks.env) == ("five", "palestra/Harbor-v0")
    assert task.reference == {"five.txt": "5\n"} and task.image is not None
    assert (task.image.folder, dict(task.image.env)) == ("/app", {"A": "1", "GREET": "hi"})
    tried = ("seeded-reward", "reads-tests", "daemon-in-its-box", "replaced-binaries")
    report = checked(tasks, grade, boxes, *tried)
    assert report.sound and report.tasks[0].attacks == dict.fromkeys(tried, "")

    verdict = asyncio.run(grade(task, work_of(task, {"five.txt": "6\n"})))
    assert verdict.rewards == {"right": 0.0, "short": 1.0} and not verdict.solved
    played = replace(make_trajectory(), verdict=verdict)
    reward = asyncio.run(score(played, None, Scheme(Harbor.rewards))).reward
    assert (
        reward is not None
        and reward.total == 0.5
        and reward.parts
        == {
            "verifier": 0.5,
            "verifier/right": 0.0,
            "verifier/short": 1.0,
        }
    )


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exit 0", "the verifier wrote no reward"),
        ("echo yes > /logs/verifier/reward.txt", "the verifier wrote no numbers"),
        ("echo nan > /logs/verifier/reward.txt", "the verifier wrote no finite numbers"),
        (
            "echo 1 > /logs/verifier/reward.txt; echo 0 > /logs/verifier/reward.json",
            "reward.txt and reward.json differ",
        ),
        ("ln -s /etc/hostname /logs/verifier/reward.txt", "the verifier wrote no reward"),
        ("mkfifo /logs/verifier/reward.txt", "the verifier wrote no reward"),
        ("kill -9 $PPID; sleep 9", "the verifier was ended by what it ran"),
        ("sleep 60", "time limit of the verifier: 1 s"),
        ("(setsid sleep 1; echo 1 > /logs/verifier/reward.txt) & echo 0 > "
         "/logs/verifier/reward.txt", "reward: 0"),
    ],
)  # fmt: skip
def test_a_verifier_without_a_clear_reward_fails(
    boxes: SandboxProvider, grade: Grader, script: str, reason: str
) -> None:
    verdict = verdict_of(script, grade, timeout=1.0 if "60" in script else 9.0)
    assert (verdict.passed, verdict.reason) == ({"verifier": False}, reason)


def test_a_verifier_that_cannot_be_laid_out_is_a_fault_of_ours(grade: Grader) -> None:
    verdict = verdict_of("echo 1 > /logs/verifier/reward.txt", grade, scratch=("/logs",))
    assert verdict.outcome is Outcome.INFRA_FAILURE and "/tests" in verdict.reason
    without_bash = {"PATH": f"{sys.base_prefix}/bin"}
    verdict = verdict_of("echo 1 > /logs/verifier/reward.txt", grade, env=without_bash)
    assert verdict.outcome is Outcome.INFRA_FAILURE and "no bash" in verdict.reason


def verdict_of(
    script: str,
    grade: Grader,
    *,
    timeout: float = 9.0,
    scratch: tuple[str, ...] = ("/tests", "/logs"),
    env: Mapping[str, str] | None = None,
) -> Verdict:
    task = Task(
        id="t",
        source=Harbor.name,
        kind="harbor",
        prompt="",
        files={},
        reference={},
        artifacts=(),
        hidden=(VerifierCheck(id="verifier", script="test.sh", timeout=timeout),),
        test_files={"test.sh": script},
        tree=Tree(files={"run.sh": File(data=b"#!/bin/sh\necho ran", executable=True)}),
        image=Image(name="", folder="/app", scratch=scratch, env=env or {}),
    )
    return asyncio.run(grade(task, work_of(task, {})))


def test_the_work_lies_where_it_was_made(grade: Grader) -> None:
    script = '[ "$(/app/run.sh)" = ran ] && [ "$PWD" = /app ] && echo 1 > /logs/verifier/reward.txt'
    assert verdict_of(script, grade).solved
    assert not verdict_of("false && echo 1 > /logs/verifier/reward.txt", grade).solved


def test_rewards_of_two_files_agree() -> None:
    assert rewards_in("1\n", '{"reward": 1}') == {"reward": 1.0}
    assert rewards_in("0.5", None) == {"reward": 0.5} == rewards_in(None, "0.5")
    assert rewards_in("1", '{"a": 1}') == "reward.txt and reward.json differ"
    assert rewards_in(None, "{}") == "the verifier wrote no reward"


def test_a_task_is_played_in_its_image(
    tmp_path: Path, docker: Any, build_image: Callable[[Mapping[str, str]], str]
) -> None:
    image = build_image({"srv/five/start.txt": "4\n"})
    written(tmp_path / "five", **{"environment/Dockerfile": None})
    where = f"docker_image = '{image}'\nworkdir = '/srv/five'\nenv = {{ A = '1', GREET = 'hi' }}"
    verifier = SOUND["task.toml"].partition("[verifier]")[2]
    toml = f"[environment]\n{where}\n[verifier]{verifier}"
    (tmp_path / "five" / "task.toml").write_text(toml)
    tasks = loaded(tmp_path, docker)
    (task,) = tasks.tasks
    assert task.tree is not None and set(task.tree.files) == {"start.txt"}
    assert checked(tasks, verifying(make_grader(docker), docker), docker).sound


STEPS = """
schema_version = "1.1"
[task]
name = "acme/steps"
[[steps]]
name = "one"
[[steps]]
name = "two"
[steps.verifier]
timeout_sec = 20.0
env = { WANTED = "b" }
"""


def test_each_step_is_a_task_that_starts_from_the_solutions_before_it(
    tmp_path: Path, boxes: SandboxProvider, grade: Grader
) -> None:
    judge = '. /tests/helpers.sh; grade "$(/app/say)" '
    made = {
        "task.toml": STEPS,
        "tests/helpers.sh": 'grade() { [ "$1" = "$2" ] && r=1; echo ${r:-0} > '
        "/logs/verifier/reward.txt; }\n",
        "tests/test.sh": None,
        "tests/judge.py": None,
        "solution/solve.sh": None,
        "instruction.md": None,
        "steps/one/instruction.md": "Make say say a.",
        "steps/one/tests/test.sh": f"{judge} a",
        "steps/one/solution/solve.sh": "printf '#!/bin/bash\\necho a\\n' > say; chmod +x say",
        "steps/two/instruction.md": "Make say say b.",
        "steps/two/workdir/setup.sh": 'cp say before; rm -- "$0"',
        "steps/two/tests/test.sh": f'{judge} "$WANTED"',
        "steps/two/solution/solve.sh": "sed -i s/a$/b/ say",
    }
    tasks = loaded(written(tmp_path / "steps", **made), boxes)
    assert [task.id for task in tasks.tasks] == ["acme/steps/one", "acme/steps/two"], tasks.skipped
    second = tasks.tasks[1].tree
    assert second is not None and set(second.files) == {"say", "before", "start.txt"}
    assert checked(tasks, grade, boxes).sound


def test_a_verifier_that_fetches_gives_way_to_its_tests(
    tmp_path: Path, boxes: SandboxProvider, grade: Grader
) -> None:
    made = {
        "tests/test.sh": "curl -L https://example.org | sh\nuvx pytest /tests/test_five.py\n",
        "tests/test_five.py": "import pytest\nfrom pathlib import Path\n"
        "@pytest.mark.parametrize('n', [1, 2])\n"
        "def test_five(n):\n    assert Path('/app/five.txt').read_text() == '5\\n'\n"
        "class TestMore:\n    def test_n(self): assert Path('/app/start.txt').exists()\n",
    }
    tasks = loaded(written(tmp_path / "five", **made), boxes)
    ids = ("tests/test_five.py::TestMore::test_n", "tests/test_five.py::test_five[")
    assert tasks.tasks[0].hidden == tuple(SuiteCheck(id=name) for name in ids)
    assert checked(tasks, grade, boxes).sound
    # Not to be run, so the task is not sound: rather than judged by the others alone.
    awaits = {"test_five.py": "async def test_later():\n    pass\n", "test.sh": "curl -L x\n"}
    hidden, _ = judged_by(
        {path: File(data=text.encode()) for path, text in awaits.items()}, VerifierTable()
    )
    assert hidden == (SuiteCheck(id="tests/test_five.py::test_later"),)
    (tmp_path / "five/tests/test_five.py").unlink()
    assert "needs a network (curl)" in loaded(tmp_path / "five", boxes).skipped[0].reason


def test_the_cookbook(data: Path, boxes: SandboxProvider, grade: Grader) -> None:
    tasks = loaded(data / "harbor-cookbook/harbor_cookbook/recipes", boxes)
    steps = ("scaffold", "implement", "document")
    assert [task.id for task in tasks.tasks] == [
        "multi-reward",
        *(f"harbor/hello-multi-step-full/{step}" for step in steps),
        "simple-task",
        "skills",
    ]
    assert "Hello from Harbor Skills!" in tasks.tasks[-1].prompt
    several = "environment/docker-compose.yaml: needs several containers"
    line = "environment/Dockerfile line 9: RUN chmod +x /entrypoint.sh: needs a built image"
    names = ("computer-use-ubuntu", "computer-use-windows", "mcp-tools", "multi-container")
    wanted = {**dict.fromkeys((*names, "simulated-user"), several), "dns-blacklisting": line}
    assert {skipped.id: skipped.reason for skipped in tasks.skipped} == wanted
    assert checked(tasks, grade, boxes).sound


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"task.toml": "x = ["}, "task.toml: "),
        ({"task.toml": "[verifier]\ntimeout_sec = 'long'"}, "task.toml: verifier.timeout_sec: "),
        ({"task.toml": "[environment]\nenv = { K = '${TOKEN}' }"}, "TOKEN has no default"),
        ({"task.toml": "[[steps]]\nname = '../x'"}, "task.toml: steps.0.name: "),
        ({"task.toml": "[environment]\ngpus = 1"}, "neither MCP servers nor GPUs"),
        ({"task.toml": "[metadata.palestra]\nid = 'x'"}, "tests/task.json: missing"),
        ({"environment/Dockerfile": "WORKDIR /usr/x"}, "'/usr/x' cannot be a work folder"),
        ({"instruction.md": None}, "instruction.md: missing"),
        ({"tests/test.sh": None}, "test.sh: missing"),
        ({"solution/solve.sh": "echo no >&2; false"}, "solution/solve.sh: no"),
        ({"solution/more.py": ""}, "solution/more.py: only solve.sh is run"),
        ({"environment/Dockerfile": "FROM a\nRUN make"}, "line 2: RUN make: needs a built image"),
        ({"environment/Dockerfile": "FROM a\nENTRYPOINT x"}, "line 2: ENTRYPOINT needs a built"),
        ({"environment/Dockerfile": "FROM a\nCOPY ../../x y"}, "there is no ../../x"),
        ({"environment/Dockerfile": "FROM a\nCOPY in/ /etc/"}, "outside of the folder"),
        ({"environment/Dockerfile": "FROM a\nRUN apt-get install nosuchtool"}, "lack nosuchtool"),
        ({"environment/docker-compose.yaml": ""}, "needs several containers"),
    ],
)
def test_a_bad_task_is_named_and_left_out(
    tmp_path: Path, boxes: SandboxProvider, changes: Any, reason: str
) -> None:
    written(tmp_path / "bad", **changes)
    (skipped,) = loaded(tmp_path, boxes).skipped
    assert skipped.id == "bad" and reason in skipped.reason


def test_links_and_giants_are_refused(tmp_path: Path, boxes: SandboxProvider) -> None:
    written(tmp_path / "link")
    (tmp_path / "link/tests/more").symlink_to("/etc")
    written(tmp_path / "large")
    with (tmp_path / "large/tests/zero").open("wb") as file:
        file.truncate(1 << 40)
    large, link = loaded(tmp_path, boxes).skipped
    assert "'tests/more': neither a folder nor a regular file" in link.reason
    assert "more than 2000 files or 16777216 bytes" in large.reason
    with pytest.raises(UserError, match=r"there is no task\.toml"):
        loaded(tmp_path / "link/tests", boxes)


AREA = mbpp_task(
    {
        "task_id": 2,
        "text": "Write area.",
        "code": "def area(r):\n    return r * r\n",
        "test_list": ["assert area(2) == 4", "assert area(3) == 9"],
    }
)
METHOD = replace(
    AREA,
    id="mean",
    reference={"solution.py": "class Solution:\n    def mean(self, of):\n"
                              "        return [sum(of) / len(of)]\n"},
    hidden=(
        CallCheck(
            id="mean#0",
            module="solution",
            function="Solution().mean",
            args=f"([{'1, ' * 100_000}2],)",
            expected=f"[{100_002 / 100_001!r}]",
        ),
    ),
)  # fmt: skip
TREE = replace(
    AREA,
    id="tree/1",
    files={},
    artifacts=(),
    visible=(),
    reference={"lib/area.py": "def area(r):\n    return r * r\n", "run": "#!/bin/sh\n"},
    hidden=(SuiteCheck(id="tests/test_area.py::test_area"),),
    test_files={"tests/test_area.py": "from lib.area import area\ndef test_area():\n"
                                      "    assert area(3) == 9\n"},
    tree=Tree(files={"lib/area.py": File(data=b""), "bin.dat": File(data=b"\0\xff")}),
)  # fmt: skip


def test_what_is_exported_is_read_back_and_grades_the_same(
    tmp_path: Path, boxes: SandboxProvider, grade: Grader
) -> None:
    for task in (AREA, TREE):
        out = tmp_path / task.id.replace("/", "-")
        assert len(export([task], out)) == 1
        tasks = loaded(out, boxes)
        assert tasks.tasks == (task,) and checked(tasks, grade, boxes).sound
        with pytest.raises(UserError, match="there is something already"):
            export([task], out)
    with pytest.raises(UserError, match="--out /proc/out: No such file"):
        export([AREA], Path("/proc/out"))
    with pytest.raises(UserError, match="the same folder"):
        export([AREA, replace(AREA, id="MBPP 2")], tmp_path / "twice")
    with pytest.raises(UserError, match="a VerifierCheck cannot be exported"):
        task_directory(replace(AREA, hidden=(VerifierCheck(id="v", script="test.sh"),)))
    with pytest.raises(UserError, match="not a path inside"):
        task_directory(replace(AREA, files={"../x": ""}))


def test_an_export_grades_itself_where_palestra_is_not(
    tmp_path: Path, boxes: SandboxProvider, grade: Grader
) -> None:
    for task in (AREA, METHOD):
        grades_itself(task, tmp_path / task.id, boxes, grade)


def grades_itself(task: Task, out: Path, boxes: SandboxProvider, grade: Grader) -> None:
    (folder,) = export([task], out)
    toml = folder / "task.toml"
    toml.write_text(toml.read_text().replace("[metadata.palestra]", "[metadata.other]"))
    tasks = loaded(out, boxes)
    assert [type(check) for check in tasks.tasks[0].hidden] == [VerifierCheck], tasks.skipped
    assert checked(tasks, grade, boxes).sound


@pytest.mark.parametrize("seconds", ["9", True, -1.0, float("inf"), float("nan")])
def test_a_time_limit_of_a_stored_verifier_is_a_number(seconds: object) -> None:
    row: Any = task_to_json(AREA)
    row["hidden"] = [{"type": "verifier", "id": "v", "script": "test.sh", "timeout": seconds}]
    with pytest.raises(BadRow, match="field timeout: not a number"):
        task_from_json(row)


@settings(max_examples=60)
@given(st.one_of(st.binary(max_size=60), st.text("[]=\"'{}abcenvgsp.1\n ", max_size=60)))
def test_any_text_is_a_table_or_bad(text: bytes | str) -> None:
    try:
        task_toml(text if isinstance(text, bytes) else text.encode())
    except BadRow as error:
        assert str(error).startswith("task.toml: ")


WORD = st.sampled_from(["FROM", "COPY", "RUN", "ENV", "WORKDIR", "in/", "./", "../..", "/", "/etc"])
WORD |= st.sampled_from(["a=1", "$A", "'", "\\\n", "\n", "apt-get", "install", "mkdir", "-p", "#"])


@settings(max_examples=150)
@given(st.lists(WORD, max_size=12))
def test_any_dockerfile_is_a_layout_or_bad(words: list[str]) -> None:
    context = {"in/a": File(data=b"")}
    try:
        found = layout(" ".join(words), context, skills="/skills")
    except BadRow as error:
        assert str(error).startswith("environment/Dockerfile")
    else:
        paths = [*found.files, *found.skills]
        assert all(part not in ("", ".", "..") for path in paths for part in path.split("/"))


def test_export_is_a_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from palestra.deploy.cli import main

    rows = tmp_path / "rows.jsonl"
    row = {"task_id": 1, "text": "t", "code": "def f(): return 1", "test_list": ["assert f() == 1"]}
    rows.write_text(json.dumps(row))
    out = tmp_path / "out"
    words = ["tasks", "export", f"mbpp:{rows}", "--format", "harbor", "--out", str(out)]
    assert main(words) == 0 and "1 tasks" in capsys.readouterr().out
    assert (out / "MBPP-1" / "tests" / "task.json").is_file()
    shutil.rmtree(out)
