"""The journal: what it has taken is there, whatever happens to the process."""

from __future__ import annotations

import math
import random
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from palestra.rl.errors import UserError
from palestra.rl.journal import APPLICATION_ID, FORMAT, EvalRow, GroupRow, Journal
from palestra.rl.types import Group, Routing, Trajectory

Make = Callable[..., Trajectory]

WRITER = """
import sys
from dataclasses import replace
from itertools import count
from pathlib import Path
from palestra.rl.journal import Journal
from palestra.rl.types import Message, Outcome, Reward, Stop, Trajectory
journal = Journal(Path(sys.argv[1]))
t = Trajectory(id="", group_id="g", task_id="t", step=1, turns=(), stop=Stop.SUBMITTED,
    prompt=(Message(role="user", content="x" * 5000),), outcome=Outcome.GRADED, temperature=1.0)
for number in count(int(sys.argv[2])):
    journal.add_trajectory(replace(t, id=f"{number:06}"))
    print(f"{number:06}", flush=True)
"""


def test_a_trajectory_comes_back_as_it_was(tmp_path: Path, make_trajectory: Make) -> None:
    given = make_trajectory("a")
    with Journal(tmp_path / "j") as journal:
        journal.add_trajectory(given)
        assert journal.trajectory("a") == given
        assert journal.trajectory("b") is None
    with Journal(tmp_path / "j") as journal:
        assert journal.trajectories(1) == [given]


def test_odd_numbers_and_texts_survive(tmp_path: Path, make_trajectory: Make) -> None:
    good = make_trajectory()
    odd = replace(
        good.turns[0], logprobs=(-math.inf, -0.1, 1e-300), observation="\x00\x1b[1m\u2028\U0001f600"
    )
    broken = replace(odd, observation="\ud800")
    with Journal(tmp_path / "j") as journal:
        journal.add_trajectory(replace(good, turns=(odd,)))
        journal.add_trajectory(replace(good, id="b", turns=(broken,)))
        a, b = journal.trajectories(1)
    assert a.turns == (odd,)
    assert b.turns[0].observation == "?"


def test_a_turn_of_an_older_journal_had_nothing_left_out(
    tmp_path: Path, make_trajectory: Make
) -> None:
    given = make_trajectory()
    cut = replace(given, turns=(replace(given.turns[0], elided=7),))
    with Journal(tmp_path / "j") as journal:
        journal.add_trajectory(cut)
        assert journal.trajectories(1) == [cut]
    with closing(sqlite3.connect(tmp_path / "j")) as file, file:
        changed = file.execute("UPDATE trajectories SET json = replace(json, ',\"elided\":7', '')")
        assert changed.rowcount == 1
    with Journal(tmp_path / "j") as journal:
        assert journal.trajectories(1) == [given]


def test_recorded_experts_survive(tmp_path: Path, make_trajectory: Make) -> None:
    played = make_trajectory()
    routing = Routing(layers=2, top_k=2, item_bytes=1, experts=bytes(range(200, 256)) + bytes(40))
    played = replace(played, turns=tuple(replace(turn, routing=routing) for turn in played.turns))
    with Journal(tmp_path / "journal.sqlite") as journal:
        journal.add_trajectory(played)
    with Journal(tmp_path / "journal.sqlite") as journal:
        (found,) = journal.trajectories(played.step)
    assert found == played
    assert found.turns and found.turns[0].routing == routing


def test_adding_twice_changes_nothing(tmp_path: Path, make_trajectory: Make) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.add_trajectory(make_trajectory("a", reward=1.0))
        journal.add_trajectory(make_trajectory("a", reward=0.0))
        assert journal.trajectories(1) == [make_trajectory("a", reward=1.0)]


def test_trajectories_are_sorted_and_grouped(tmp_path: Path, make_trajectory: Make) -> None:
    with Journal(tmp_path / "j") as journal:
        for name, group, step in (("c", "h", 2), ("b", "g", 1), ("a", "g", 1)):
            journal.add_trajectory(make_trajectory(name, group=group, step=step))
        assert [t.id for t in journal.trajectories(1)] == ["a", "b"]
        assert [t.id for t in journal.group("h")] == ["c"]
        assert journal.groups(1) == [GroupRow(id="g", step=1, task_id="task-g", size=2)]
        assert [row.id for row in journal.groups()] == ["g", "h"]


def test_steps_are_replaced_and_sorted(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        assert journal.last_step() is None
        for step, value in ((2, 0.5), (1, 0.1), (2, 0.7)):
            journal.finish_step(step, {"reward/mean": value})
        assert journal.steps() == [(1, {"reward/mean": 0.1}), (2, {"reward/mean": 0.7})]
        assert journal.last_step() == 2
        assert list(journal.finish_times()) == [1, 2]


def test_evaluations(tmp_path: Path, make_trajectory: Make) -> None:
    row = EvalRow(step=0, split="s", task_id="t", sample=0, solved=True)
    with Journal(tmp_path / "j") as journal:
        journal.add_eval(row, make_trajectory())
        journal.add_eval(replace(row, solved=False))
        journal.add_eval(replace(row, step=5, sample=1))
        assert journal.evals(0) == [row]
        assert len(journal.evals()) == len(journal.evals(split="s")) == 2
        assert journal.evals(split="other") == []
        assert journal.eval_trajectories(0, "s") == [make_trajectory()]


def test_meta_holds_json(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        assert journal.get_meta("k", 3) == 3
        for value in ({"a": [1, None, 2.5]}, None, "text"):
            journal.set_meta("k", value)
            assert journal.get_meta("k", 3) == value


def test_rewards_that_shaping_left_alone_replace_shaped_ones(
    tmp_path: Path, make_trajectory: Make
) -> None:
    raw = make_trajectory("a")
    assert raw.reward
    cut = replace(raw, reward=raw.reward.shaped("toggle", 0.25))
    with Journal(tmp_path / "j") as journal:
        for learned, kept in ((cut, {"a": cut.reward}), (raw, {}), (cut, {"a": cut.reward})):
            journal.add_shaped(1, [Group(id="g", task_id="t", trajectories=(learned,))])
            assert journal.shaped(1) == kept


def test_another_connection_reads_while_one_writes(tmp_path: Path, make_trajectory: Make) -> None:
    with Journal(tmp_path / "j") as writer, Journal(tmp_path / "j", read_only=True) as reader:
        writer.add_trajectory(make_trajectory("a"))
        assert len(reader.trajectories(1)) == 1
        writer.add_trajectory(make_trajectory("b"))
        assert len(reader.trajectories(1)) == 2
        with pytest.raises(UserError, match="readonly"):
            reader.add_trajectory(make_trajectory("c"))


def _newer(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {FORMAT + 1}")


def _foreign(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (x)")


def _text(path: Path) -> None:
    path.write_text("this is no database, but long enough to look at" * 100)


def _folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_newer, "newer palestra"),
        (_foreign, "not a journal"),
        (_text, "cannot be used"),
        (_folder, "cannot be used"),
    ],
)
@pytest.mark.parametrize("read_only", [True, False])
def test_a_bad_file_is_one_line(
    tmp_path: Path, spoil: Callable[[Path], None], says: str, read_only: bool
) -> None:
    path = tmp_path / "j"
    spoil(path)
    if read_only and spoil is _folder:
        says = "no journal"
    with pytest.raises(UserError, match=says) as raised:
        Journal(path, read_only=read_only)
    assert "\n" not in str(raised.value) and str(path) in str(raised.value)


def test_damage_inside_is_one_line(tmp_path: Path, make_trajectory: Make) -> None:
    path = tmp_path / "j"
    with Journal(path) as journal:
        for number in range(50):
            journal.add_trajectory(make_trajectory(f"{number:03}"))
    data = bytearray(path.read_bytes())
    data[8192:] = bytes(b ^ 0x5A for b in data[8192:])
    path.write_bytes(data)
    with pytest.raises(UserError) as raised, Journal(path) as journal:
        journal.trajectories(1)
    assert "\n" not in str(raised.value)


def test_missing_is_not_created_by_a_reader(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no journal"):
        Journal(tmp_path / "j", read_only=True)
    assert not list(tmp_path.iterdir())


def test_kill_9_loses_nothing_that_was_taken(tmp_path: Path) -> None:
    path = tmp_path / "j"
    taken: list[str] = []
    chance = random.Random(0)
    for _ in range(3):
        command = [sys.executable, "-c", WRITER, str(path), str(len(taken) + 1000)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout
            lines = islice(iter(child.stdout.readline, ""), chance.randrange(1, 60))
            taken += [line.strip() for line in lines]
            child.send_signal(signal.SIGKILL)
            taken += child.stdout.read().split()
        with Journal(path) as journal:
            kept = {t.id for t in journal.trajectories(1)}
            assert set(taken) <= kept
            # At most the record that was committed but not yet announced.
            assert len(kept) <= len(set(taken)) + 3
            connection = sqlite3.connect(path)
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            connection.close()


def test_a_full_disk_is_one_line_and_takes_nothing_back(
    tmp_path: Path, make_trajectory: Make
) -> None:
    taken: list[str] = []
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Journal(tmp_path / "j") as journal:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
            with pytest.raises(UserError, match="cannot be used") as raised:
                for number in range(1000):
                    journal.add_trajectory(make_trajectory(f"{number:03}"))
                    taken.append(f"{number:03}")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert "\n" not in str(raised.value)
        journal.add_trajectory(make_trajectory("later"))
    with Journal(tmp_path / "j") as journal:
        assert {t.id for t in journal.trajectories(1)} == {*taken, "later"} != {"later"}
        journal._connection.execute("PRAGMA max_page_count = 1")  # as small as it is now
        with pytest.raises(UserError, match=r"full.*; make room and run the same command again"):
            for number in range(1000):
                journal.add_trajectory(make_trajectory(f"more/{number}"))
