"""The command line: what is offered, how wrong use is answered, and what is not imported."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from palestra.deploy.cli import COMMANDS, LATER, build_parser, main
from palestra.deploy.commands import tasks as tasks_command
from palestra.rl.errors import SandboxError
from palestra.sandbox.base import GUARANTEES
from palestra.sandbox.owner import Owner
from palestra.sandbox.redteam.attack import Attack
from palestra.sandbox.redteam.registry import ATTACKS
from palestra.sandbox.workspace import Record, create

HEAVY = ("torch", "ray", "vllm", "pydantic", "rich", "numpy", "transformers", "gymnasium")

LAZY = f"""
import sys
from palestra.deploy.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    assert end.code == 0, end.code
heavy = [name for name in {HEAVY!r} if name in sys.modules]
assert not heavy, heavy
"""


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config) -> None:
    monkeypatch.chdir(pytestconfig.rootpath)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["train", "--help"], ["--version"], ["plan", "--help"]]
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LAZY, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_help_lists_every_command() -> None:
    text = " ".join(build_parser().format_help().split())
    for command in (*COMMANDS, *LATER):
        assert f" {command} " in text
    assert text.count("(not in this version)") == len(LATER)


def test_a_ptx_file_that_is_not_there_is_told_before_anything_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("palestra.deploy.head.connected", lambda: pytest.fail("started"))
    given = ["--run", str(tmp_path), "--set", "rl.ptx.files={'gone.jsonl'=1.0}"]
    assert main(["train", "recipes/tiny.toml", *given]) == 2
    said = capsys.readouterr().err
    assert said.startswith("palestra: cannot read gone.jsonl: ") and said.count("\n") == 1


@pytest.mark.parametrize("command", LATER)
def test_later_commands_say_so(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "anything", "--at", "all"]) == 2
    assert _one_line(capsys) == f"palestra: {command}: not in this version"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "give a command"),
        (["trian"], "no command trian; did you mean train?"),
        (["xyzzy"], "see palestra --help"),
        (["train"], "required: RECIPE"),
        (["train", "none.toml"], "none.toml: there is no such recipe"),
        (["train", "recipes/tiny.toml", "--set", "rl.stepz=1"], "did you mean rl.steps?"),
        (["train", "recipes/tiny.toml", "--set", "logger=['abacus']"], "unknown logger 'abacus'"),
        (
            ["train", "recipes/tiny.toml", "--set", "rewards.use.x={function='nowhere:f'}"],
            "reward nowhere:f: No module named 'nowhere'",
        ),
        (["train", "recipes/tiny.toml", "--set", "name=../x"], "not a folder name"),
        (["train", "recipes/tiny.toml", "--run", "a", "--resume", "b"], "name two folders"),
        (["train", "recipes/tiny.toml", "--fast"], "unrecognized arguments: --fast"),
        (["config", "recipes/tiny.toml", "--set", "rl.steps=many"], "valid integer"),
        (["config", "pyproject.toml"], "unknown key"),
        (["eval", "none", "--tasks", "repair:"], "none: not a Hugging Face checkpoint"),
        (["eval", "none"], "required: --tasks"),
        (["eval", "none", "--tasks", "repair:", "-n", "0"], "'0' is not a whole number"),
        (["tasks"], "required: check|show"),
        (["tasks", "check"], "required: SOURCE"),
        (["tasks", "check", "repair:", "--limit", "x"], "'x' is not a whole number"),
        (["tasks", "check", "nonsense:x"], "unknown task source"),
        (["score", "repair:", "--solutions", "none.jsonl"], "there is no such file"),
        (["new"], "required: env|reward"),
        (["show", "none"], "there is no run here"),
        (["show", "none", "--step", "x"], "invalid int value"),
        (["doctor", "me"], "unrecognized arguments: me"),
        (["sandbox"], "required: doctor|bench|reap"),
        (["sandbox", "doctor", "--backend", "vm"], "--backend vm: there are bubblewrap"),
        (["sandbox", "reap", "--label", "x"], "write NAME=VALUE"),
        (["sandbox", "reap", "--older", "-1"], "'-1' is not a number of seconds"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    line = _one_line(capsys)
    assert line.startswith("palestra: ") and says in line


def _one_line(capsys: pytest.CaptureFixture[str]) -> str:
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err.count("\n") == 1 and "Traceback" not in found.err
    return found.err.strip()


def test_config_in_three_forms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["config", "recipes/tiny.toml", "--set", "rl.steps=3"]
    assert main(arguments) == 0
    assert "--set" in capsys.readouterr().out
    assert main([*arguments, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows["rl.steps"] == {"value": 3, "source": "--set"}
    assert main([*arguments, "--toml"]) == 0
    (tmp_path / "again.toml").write_text(capsys.readouterr().out)
    assert main(["config", str(tmp_path / "again.toml"), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert {k: v["value"] for k, v in again.items()} == {k: v["value"] for k, v in rows.items()}


@pytest.mark.parametrize("command", ["envs", "rewards"])
def test_registries(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--json"]) == 0
    assert "palestra" in {row["origin"] for row in json.loads(capsys.readouterr().out)}
    assert main([command]) == 0
    assert capsys.readouterr().out.startswith("name")


def test_the_rewards_of_a_recipe_are_listed_with_their_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe_rewards.py").write_text(
        'async def together(trajectories):\n    """Siblings judged."""\n\n'
        "async def three(a, b, c): ...\n"
    )
    recipe = tmp_path / "own.toml"
    recipe.write_text('[rewards.use.x]\nfunction = "recipe_rewards:together"\n')
    assert main(["rewards", str(recipe), "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    own = rows["recipe_rewards:together"]
    assert (own["origin"], own["summary"]) == ("recipe_rewards", "of siblings: Siblings judged.")
    assert rows["length"]["summary"].startswith("of siblings: K1.5")
    assert rows["style"]["summary"].startswith("1 / (1 + n)")
    recipe.write_text('[rewards.use.x]\nfunction = "recipe_rewards:three"\n')
    assert main(["rewards", str(recipe), "--json"]) == 1
    assert "is no reward; one is async" in json.loads(capsys.readouterr().out)[-1]["error"]


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PALESTRA_CACHE", str(tmp_path / "cache"))
    rows = [
        {
            "task_id": f"Add/{number}",
            "prompt": f"def add{number}(a, b):\n",
            "canonical_solution": f"    return {body}\n",
            "test": "def check(f):\n    assert f(1, 2) == 3\n",
            "entry_point": f"add{number}",
        }
        for number, body in enumerate(("a + b", "a - b"))
    ]
    path = tmp_path / "add.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"humaneval:{path}"


def test_tasks_check_and_show(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks", "check", source, "--limit", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reference_pass"] == 1
    assert main(["tasks", "check", source, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["tasks"], found["reference_pass"], found["noop_pass"]) == (2, 1, 0)
    assert [row["id"] for row in found["invalid"]] == ["Add/1"]
    assert main(["tasks", "check", source]) == 1
    assert "Add/1: the reference fails" in capsys.readouterr().out
    assert main(["tasks", "show", source, "--json"]) == 0
    assert [row["id"] for row in json.loads(capsys.readouterr().out)["tasks"]] == ["Add/0", "Add/1"]
    assert main(["tasks", "show", source, "Add/1"]) == 0
    assert "return a - b" in capsys.readouterr().out
    assert main(["tasks", "show", source, "Add/"]) == 2
    assert "more than one task" in _one_line(capsys)


def test_a_report_for_browsers_holds_no_markup_of_others(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(source.removeprefix("jsonl:").removeprefix("humaneval:"))
    evil = '<script>alert(1)</script>"><img onerror=x>'
    path.write_text(path.read_text().replace("Add/1", json.dumps(evil)[1:-1]) + "[]\n")
    page = tmp_path / "report.html"
    assert main(["tasks", "check", source, "--repeats", "1", "--html", str(page)]) == 1
    text = page.read_text()
    assert "<script" not in text and "<img" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert text.index("the reference fails") < text.index("Add/0"), "problems come first"
    assert f"{path.name} row 3" in text and "not sound" in text
    capsys.readouterr()
    for place, says in (("no/x.html", "there is no such folder"), ("", "name a file")):
        assert main(["tasks", "check", source, "--html", str(tmp_path / place)]) == 2
        assert says in _one_line(capsys)


def test_tasks_check_with_a_red_team(
    source: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    check = ["tasks", "check", source, "--limit", "1", "--red-team"]
    ours = {name: ATTACKS[name] for name in ("raise-system-exit", "by-rote")}
    monkeypatch.setattr(tasks_command, "ATTACKS", ours)
    assert main([*check, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["red_team"] == {"raise-system-exit": 0}
    wins = Attack(row=16, tries="knows the answer", code="def attack(a, b): return 3")
    monkeypatch.setattr(tasks_command, "ATTACKS", {**ours, "wins": wins})
    assert main([*check, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["red_team"] == {"raise-system-exit": 0, "wins": 1}
    assert found["invalid"] == [{"id": "Add/0", "reason": "passed by attack wins"}]
    assert main(check) == 1
    said = capsys.readouterr().out
    assert "Add/0: wins knows the answer: it passed all 1 checks\n" in said
    assert "row 21: not tried: no model judges" in said
    assert main([*check, "--unsafe-local"]) == 2
    assert "unsafe-local lacks fs, kill_tree, signals" in capsys.readouterr().err


def test_score(source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    solutions = tmp_path / "solutions.jsonl"
    bodies = ("    return a + b\n", "    return 0\n")
    rows = [{"task_id": f"Add/{number}", "completion": body} for number, body in enumerate(bodies)]
    solutions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["score", source, "--solutions", str(solutions), "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["outcome"], row["reward"]) for row in found] == [("graded", 1.0), ("graded", 0.0)]
    assert set(found[0]) == {"task_id", "outcome", "reward", "parts", "reason"}
    assert main(["score", source, "--solutions", str(solutions)]) == 0
    assert "2 solutions: 2 graded; mean reward 0.500" in capsys.readouterr().out


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert code == (0 if found["ok"] else 1)
    assert {"python", "torch", "ray", "vllm", "sandbox", "disk"} <= {
        finding["name"] for finding in found["findings"]
    }


def test_sandbox_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["sandbox", "doctor", "--backend", "landlock", "--json"])
    [found] = json.loads(capsys.readouterr().out).values()
    assert code == (0 if {"fs", "no_net", "kill_tree"} <= set(found["guarantees"]) else 1)
    assert found["works"] is (found["problem"] == "")
    assert sorted(found["guarantees"] + found["lacks"]) == sorted(GUARANTEES)
    assert found["warm"] is False and bool(found["cold_because"]) is found["works"]
    assert main(["sandbox", "doctor", "--backend", "landlock"]) == code
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["guarantee", "landlock", "meaning"]
    assert {line.split()[0] for line in lines[1 : len(GUARANTEES) + 1]} == set(GUARANTEES)


def test_sandbox_bench(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sandbox", "bench", "--backend", "landlock", "--cycles", "2"]
    works = main(["sandbox", "doctor", "--backend", "landlock"]) == 0
    capsys.readouterr()
    assert main([*words, "--json"]) == (0 if works else 1)
    for found in json.loads(capsys.readouterr().out).values():
        assert set(found) == {"start_ms", "exec_ms", "cycles_per_s"}
        assert 0 < found["exec_ms"]["p50"] <= found["exec_ms"]["p95"] and found["cycles_per_s"] > 0
    assert main(words) == (0 if works else 1)
    table = capsys.readouterr().out
    assert table.startswith("backend ") and "landlock" in table


def test_sandbox_reap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name, owner in (("dead", replace(Owner.me(), started=1)), ("alive", Owner.me())):
        record = replace(Record.fresh({"run": name}, ttl=60), owner=owner)
        create(tmp_path, f"palestra-{name}", record)
    local = ["sandbox", "reap", "--backend", "landlock"]
    assert main([*local, "--label", "run=other", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"removed": {"local": []}, "problems": {}}
    assert main(local) == 0
    assert capsys.readouterr().out == "removed palestra-dead (local)\n1 box removed\n"
    assert main([*local, "--label", "run=alive", "--older", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["removed"] == {"local": ["palestra-alive"]}
    assert list(tmp_path.iterdir()) == []


def test_sandbox_reap_says_what_it_could_not_remove(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stuck(name: str) -> None:
        if name == "palestra-stuck":
            raise SandboxError(f"processes of {name} do not die")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for variable in ("DOCKER_HOST", "KUBECONFIG"):
        monkeypatch.setenv(variable, f"unix://{tmp_path}/absent")
    dead = replace(Record.fresh({}, ttl=60), owner=replace(Owner.me(), started=1))
    for name in ("palestra-stuck", "palestra-other"):
        create(tmp_path, name, dead)
    monkeypatch.setattr("palestra.sandbox.keeper.remove_groups", stuck)
    assert main(["sandbox", "reap"]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "removed palestra-other (local)" and said[-1] == "1 box removed"
    assert "local: 1 of 2 not removed: processes of palestra-stuck do not die" in said


def test_an_interrupt_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(function: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("palestra.deploy.cli._load", interrupted)
    assert main(["envs"]) == 130
    assert _one_line(capsys) == "palestra: interrupted"


def test_a_reader_may_leave() -> None:
    command = f"{sys.executable} -m palestra.deploy.cli config recipes/tiny.toml | head -n 1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False
    )
    assert done.stderr == "" and done.returncode == 0
