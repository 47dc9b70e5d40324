"""Rewards computed again over a recorded run: what changed is told, and nothing is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from palestra.deploy.cli import main
from palestra.rl.journal import Journal
from palestra.rl.types import Outcome, Stop, Trajectory

REWARDS = '''
from palestra.rl.errors import Abstain


async def brief(trajectory, box, *, most: int = 1):
    """1.0 up to so many turns."""
    if trajectory.id == "2/a/1":
        raise Abstain("not mine")
    return float(len(trajectory.turns) <= most)


async def picky(trajectory, box):
    return 1 / (trajectory.id != "1/a/0")
'''
BRIEF = ("--set", "rewards.use.brief.function=my_rewards:brief", "--set", "rewards.workers=1")


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_trajectory: Callable[..., Trajectory]
) -> Path:
    monkeypatch.setenv("PALESTRA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_rewards.py").write_text(REWARDS)
    row = {
        "task_id": "task-1/a",
        "prompt": "def add(a, b):\n",
        "canonical_solution": "    return a + b\n",
        "test": "def check(f):\n    assert f(1, 2) == 3\n",
        "entry_point": "add",
    }
    (tmp_path / "add.jsonl").write_text(json.dumps(row) + "\n")
    path = tmp_path / "runs" / "tiny"
    path.mkdir(parents=True)
    (path / "config.toml").write_text(f'[tasks]\nsource = "humaneval:{tmp_path / "add.jsonl"}"\n')
    with Journal(path / "journal.sqlite") as journal:
        for step, group in ((1, "1/a"), (2, "2/a")):
            for index, reward in enumerate((0.0, 1.0)):
                made = make_trajectory(f"{group}/{index}", group=group, step=step, reward=reward)
                journal.add_trajectory(made)
        late = make_trajectory("2/a/2", group="2/a", step=2)
        journal.add_trajectory(
            replace(late, reward=None, outcome=Outcome.INFRA_FAILURE, stop=Stop.REWARD_ERROR)
        )
        journal.add_trajectory(make_trajectory("2/a/3", group="2/a", step=2, reward=None))
    return path


def lines(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> list[str]:
    assert main(list(words)) == code
    return capsys.readouterr().out.splitlines()


def test_what_a_run_says_of_itself_is_unchanged(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = lines(capsys, "score", str(run))
    # The reward that had failed can be computed now; what was lost in play stays out.
    assert found[0].split() == ["-", "->", "1.000", "2/a/2", "tests_pass", "1"]
    assert found[-1] == "5 episodes: 1 changed, 0 could not be scored; mean reward 0.500 -> 0.600"
    assert lines(capsys, "score", str(run), "--step", "1")[-1].startswith("2 episodes: 0 changed")


def test_a_new_reward_shows_what_it_changes(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weight = ("--set", "rewards.use.brief.weight=0.5")
    before = (run / "journal.sqlite").read_bytes()
    rows = [
        json.loads(line) for line in lines(capsys, "score", str(run), "--json", *BRIEF, *weight)
    ]
    assert [(r["id"], r["old"], r["new"]) for r in rows] == [
        *(("1/a/0", 0.0, 0.5), ("1/a/1", 1.0, 1.5)),
        *(("2/a/0", 0.0, 0.5), ("2/a/1", 1.0, 1.0), ("2/a/2", None, 1.5)),
    ]
    assert rows[0]["parts"] == {"tests_pass": 0.0, "brief": 1.0}
    assert rows[3]["abstained"] == {"brief": "not mine"}
    found = lines(capsys, "replay", str(run), "2/a", "--grade", *BRIEF)
    assert [line.split()[3] for line in found[:3]] == ["2/a/0", "2/a/1", "2/a/2"]
    assert found[1].split()[:3] == ["1.000", "->", "1.000"] and "brief abstained: not" in found[1]
    assert "brief       -       1.000  1" in found
    assert (run / "journal.sqlite").read_bytes() == before


def test_siblings_are_rated_again_and_failures_are_told(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picky = ("--set", "rewards.use.picky.function=my_rewards:picky")
    length = ("--set", "rewards.use.length.weight=0.1")
    found = lines(capsys, "score", str(run), *picky, *length, code=1)
    assert "0.000 ->       -  1/a/0  reward picky: ZeroDivisionError: division by zero" in found[0]
    assert "1.000 ->   2.000  1/a/1" in found[1]
    assert "5 episodes: 5 changed, 1 could not be scored" in found[-1]


def test_what_is_recorded_may_count_as_it_is(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    function = ("--set", "rewards.use.then.function=recorded")
    part = ("--set", 'rewards.use.then.options={part="tests_pass"}')
    rows = lines(capsys, "score", str(run), "--json", "--step", "2", *function, *part)
    found = [json.loads(row) for row in rows]
    assert [row["new"] for row in found] == [0.0, 2.0, 1.0]
    assert found[2]["abstained"] == {"then": "no part 'tests_pass' is recorded"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["score", "mbpp:x"], "mbpp:x: no run folder; solutions are given by --solutions"),
        (["score", "runs"], "runs: there is no run here; "),
        (["score", "runs/tiny", "--step", "9"], "no step 9; there is 1 to 2"),
        (["score", "runs/tiny", "--set", "rl.steps=1"], "only [rewards] and [sandbox] have"),
        (["score", "x", "--solutions", "y", "--step", "1"], "--step is for the episodes of a run"),
        (["replay", "runs/tiny", "9", "--grade"], "no group 9; there is 1/a, 2/a"),
        (["replay", "runs/tiny", "1/a"], "required: --grade"),
        (
            ["replay", "runs/tiny", "1/a", "--grade", "--set", "rewards.use.x.weight=1"],
            "no reward 'x'; there are: tests_pass",
        ),
    ],
)
def test_wrong_use_is_one_line(
    run: Path, words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1
