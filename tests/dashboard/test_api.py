"""The API: what is recorded comes out, whatever state a folder is in."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from palestra.deploy.dashboard.index import environment_of
from palestra.deploy.run_folder import LOCK
from palestra.rl.journal import APPLICATION_ID, FORMAT, Journal
from palestra.rl.types import Judgement, Message, Opinion, Trajectory, Turn

Make = Callable[..., Trajectory]
Client = Callable[..., TestClient]


def get(client: TestClient, path: str, **query: Any) -> Any:
    answer = client.get(f"/api/runs/tiny{path}", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def ids(client: TestClient, **query: Any) -> list[str]:
    return [episode["id"] for episode in get(client, "/trajectories", **query)["episodes"]]


def test_runs_and_their_states(folder: Path, tiny: Path, client: Client) -> None:
    (folder / "empty").mkdir()
    (folder / "empty" / "config.toml").write_text("[rl")
    (folder / "half").mkdir()
    (folder / "half" / "journal.sqlite").touch()
    (folder / "noise").mkdir()
    (folder / "noise" / "journal.sqlite").write_bytes(b"\0nothing that is a database" * 99)
    shutil.copytree(tiny, folder / "newer")
    with closing(sqlite3.connect(folder / "newer" / "journal.sqlite")) as newer:
        newer.execute(f"PRAGMA user_version = {FORMAT + 1}")
    shutil.copytree(tiny, folder / "torn")
    with (folder / "torn" / "journal.sqlite").open("r+b") as torn:
        torn.seek(4096)
        torn.write(b"\xff" * 200_000)
    (folder / "no run").mkdir()
    (folder / "out").symlink_to(folder.parent)
    local = client()
    listed = local.get("/api/runs").json()
    runs = {run["name"]: run for run in listed["runs"]}
    assert {name: run["state"] for name, run in runs.items()} == {
        "empty": "empty",
        "half": "empty",
        "newer": "unreadable",
        "noise": "unreadable",
        "tiny": "done",
        "torn": "unreadable",
    }
    assert "install the newer version" in runs["newer"]["problem"]
    assert runs["tiny"]["step"] == 2 and runs["tiny"]["steps"] == 9 and not runs["tiny"]["problem"]
    assert runs["tiny"]["latest"]["reward/mean"] == pytest.approx(2 / 3)
    for name in runs:
        assert local.get(f"/api/runs/{name}").status_code == 200
        assert local.get(f"/api/runs/{name}/health").status_code == 200
        listing = local.get(f"/api/runs/{name}/trajectories")
        assert listing.status_code == (200 if name == "tiny" else 409), listing.text
    assert "nothing has been recorded yet" in local.get("/api/runs/half/trajectories").text
    assert local.get("/metrics").status_code == 200
    for name in ("none", "..", "%2e%2e", "out", "no run", "tiny%2f..%2ftiny"):
        assert local.get(f"/api/runs/{name}/facets").status_code == 404


def test_a_folder_of_100_gib_is_not_read_as_a_whole(tiny: Path, client: Client) -> None:
    local = client()
    before = get(local, "/trajectories")
    weights = tiny / "checkpoints" / "step-2" / "model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.touch()
    for path in (weights, tiny / "journal.sqlite"):
        os.truncate(path, 50 << 30)
    (run,) = local.get("/api/runs").json()["runs"]
    assert (run["state"], run["step"], run["problem"]) == ("done", 2, "")
    assert get(client(), "/trajectories") == before


def test_a_journal_that_somebody_has_locked_is_said_to_be(tiny: Path, client: Client) -> None:
    (tiny.parent / "locked").mkdir()
    path = tiny.parent / "locked" / "journal.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode = DELETE")
        writer.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        writer.execute("BEGIN EXCLUSIVE")
        writer.execute("CREATE TABLE meta (key, value)")
        (run,) = (r for r in client().get("/api/runs").json()["runs"] if r["name"] == "locked")
    assert run["state"] == "unreadable" and "locked" in run["problem"]


def test_filters(tiny: Path, client: Client) -> None:
    local = client()
    everything = get(local, "/trajectories")
    assert everything["total"] == 14 and everything["progress"] == {"indexed": 14, "recorded": 14}
    assert len(ids(local, split="train")) == 13
    assert ids(local, split="held") == ["eval/held/repair/x/0@2"]
    assert ids(local, group="2/b", solved=False) == ["2/b/2", "2/b/1"]
    assert ids(local, outcome="infra_failure") == ["2/c/0"]
    assert len(ids(local, reward_max=0.5)) == 4 and len(ids(local, reward_min=0.5)) == 9
    assert ids(local, environment="task-1", sort="oldest")[0] == "1/a/0"
    assert len(ids(local, step=1)) == 6 and ids(local, step=1, task="task-1/b", solved=True)
    assert ids(local, stop="time_limit") == [] and ids(local, errors=True) == []


def test_pages_hold_every_episode_once(tiny: Path, client: Client) -> None:
    local = client()
    for sort in ("newest", "oldest", "reward", "-reward", "tokens", "-tokens"):
        seen: list[str] = []
        cursor = ""
        while True:
            page = get(local, "/trajectories", sort=sort, limit=3, cursor=cursor)
            seen += [episode["id"] for episode in page["episodes"]]
            cursor = page["cursor"]
            if not cursor:
                break
        assert len(seen) == len(set(seen)) == 14
        rewards = [e["reward"] for e in get(local, "/trajectories", sort=sort)["episodes"]]
        if sort == "-reward":
            assert rewards == [*[1.0] * 9, *[0.0] * 4, None]


def test_search_takes_words_not_operators(
    tiny: Path, make_trajectory: Make, client: Client
) -> None:
    said = Message(role="user", content='Naïve off-by-one "error" in clamp() NEAR the end')
    with Journal(tiny / "journal.sqlite") as journal:
        journal.add_trajectory(replace(make_trajectory("3/a/0", step=3), prompt=(said,)))
    local = client()
    for text in ("naive", "off-by-one", 'clamp( "error', "one NEAR", "cla", "replace return"):
        assert "3/a/0" in ids(local, q=text), text
    for text in ("clampx", "NOT clamp", '"'):
        assert ("3/a/0" in ids(local, q=text)) is (text == '"'), text


def test_the_index_follows_the_journal(tiny: Path, make_trajectory: Make, client: Client) -> None:
    local = client()
    assert len(ids(local)) == 14
    with Journal(tiny / "journal.sqlite") as journal:
        journal.add_trajectory(make_trajectory("3/a/0", step=3))
        assert ids(local)[0] == "3/a/0"
    # Another run takes the folder: nothing of the old one is left.
    for file in tiny.glob("journal.sqlite*"):
        file.unlink()
    with Journal(tiny / "journal.sqlite") as journal:
        journal.add_trajectory(make_trajectory("fresh", step=1))
    assert ids(client()) == ["fresh"]


def test_a_damaged_record_hides_no_other(tiny: Path, client: Client) -> None:
    with closing(sqlite3.connect(tiny / "journal.sqlite")) as journal:
        journal.execute("UPDATE trajectories SET json = '{\"half' WHERE id = '1/a/1'")
        journal.execute("UPDATE trajectories SET json = CAST(x'ff00fe' AS TEXT) WHERE id = '1/a/2'")
        journal.commit()
    local = client()
    assert len(ids(local)) == 12
    assert local.get("/api/runs/tiny/trajectory", params={"id": "1/a/1"}).status_code == 409


def test_groups_with_the_advantages_of_shaped_rewards(tiny: Path, client: Client) -> None:
    found = get(client(), "/groups", step=2)
    groups = {group["id"]: group for group in found["groups"]}
    assert found["estimator"] == "mean" and not found["whitened"]
    assert not groups["2/a"]["teaches"] and groups["2/b"]["teaches"]
    assert [s["advantage"] for s in groups["2/b"]["siblings"]] == pytest.approx(
        [1 / 3, -1 / 6, -1 / 6]
    )
    assert groups["2/b"]["siblings"][0]["shaping"] == {"toggle": -0.5}
    assert [s["advantage"] for s in groups["2/c"]["siblings"]] == [None]


def test_an_episode(tiny: Path, client: Client) -> None:
    local = client()
    episode = get(local, "/trajectory", id="2/b/0")
    assert episode["reward"] == 1.0 and episode["shaped"] == 0.5
    assert episode["advantage"] == pytest.approx(1 / 3)
    (turn,) = episode["turns"]
    assert turn["calls"] == [
        {"name": "replace", "arguments": {"line": "3", "text": "    return x"}}
    ]
    assert turn["mean_logprob"] == pytest.approx(-0.2) and turn["observation"] == "ok"
    assert episode["checks"] == [{"id": "c#0", "passed": True}, {"id": "c#1", "passed": True}]
    evaluated = get(local, "/trajectory", id="eval/held/repair/x/0@2")
    assert evaluated["split"] == "held" and evaluated["advantage"] is None
    tokens = get(local, "/tokens", id="2/b/0")
    context, reply = tokens["segments"]
    assert not tokens["decoded"] and reply["pieces"] == ["3 ", "4 ", "5 "]
    assert not context["sampled"] and context["logprobs"] == [] and context["ids"] == [1, 2]
    assert reply["sampled"] and reply["logprobs"] == [-0.1, -0.2, -0.3]
    assert reply["log_ratios"] == [] and tokens["compared"] == []
    for wrong in ("none", "eval/held/repair/x/0@", "eval/held/x@9" + "9" * 40, "@", "\0"):
        assert local.get("/api/runs/tiny/trajectory", params={"id": wrong}).status_code == 404


def test_the_ratio_of_learner_and_engine_is_there_where_it_was_kept(
    tiny: Path, client: Client, make_turn: Callable[..., Turn], make_trajectory: Make
) -> None:
    long = make_trajectory("2/b/9", group="2/b", step=2, turns=(make_turn(), make_turn()))
    with Journal(tiny / "journal.sqlite") as journal:
        journal.add_trajectory(long)
        scored = [-0.1, -0.2 + 3e-7, -0.8, -0.1, math.nan, -0.3]
        journal.set_meta("learner_logprobs/2", {"2/b/9": scored})
    local = client()
    tokens = get(local, "/tokens", id="2/b/9")
    assert tokens["compared"] == ["2/b/9"] == get(local, "/tokens", id="2/b/0")["compared"]
    given, first, again, second = (segment["log_ratios"] for segment in tokens["segments"])
    assert given == again == []
    assert first == [0.0, 3e-7, -0.5] and second == [0.0, None, 0.0]
    assert get(local, "/tokens", id="2/b/0")["segments"][1]["log_ratios"] == []


def test_neighbours(tiny: Path, client: Client) -> None:
    beside = get(client(), "/neighbours", id="1/b/0", split="train")
    assert beside == {
        "previous": "1/a/2",
        "next": "1/b/1",
        "previous_failing": "",
        "next_failing": "1/b/1",
    }


def test_metrics(tiny: Path, client: Client) -> None:
    local = client()
    query = {"runs": ["tiny"], "names": ["odd", "nan", "absent"]}
    series = local.get("/api/metrics", params=query).json()["series"]
    assert [(s["name"], s["steps"], s["values"]) for s in series] == [
        ("odd", [1, 2], [1.0, 0.5]),
        ("nan", [1, 2], [None, None]),
    ]
    later = local.get("/api/metrics", params={"runs": "tiny", "names": "odd", "first": 2}).json()
    assert later["series"][0]["steps"] == [2]
    (first, _) = get(local, "/timeline")["steps"]
    assert first["seconds"] == {"learn": 1.0} and first["total"] == 4.0
    assert 'palestra_metric{name="odd",run="tiny"} 0.5' in local.get("/metrics").text
    assert local.get("/api/metrics", params={"runs": "none", "names": "odd"}).status_code == 404


def test_health_and_evaluations(tiny: Path, client: Client) -> None:
    with Journal(tiny / "journal.sqlite") as journal:
        journal.finish_step(
            3, {"hacking/tests": 0.25, "hacking/alarm": 1.0, "infra/failure_frac": math.inf}
        )
    local = client()
    health = get(local, "/health")
    alerts = [alert["metric"] for alert in health["alerts"]]
    assert alerts == ["infra/failure_frac", "infra/failure_frac", "hacking/alarm"]
    found = {detector["name"]: detector["at"] for detector in health["detectors"]}
    assert found == {"hacking/tests": 3, "hacking/alarm": 3}
    task = health["environments"][0]
    assert (task["environment"], task["episodes"], task["groups"]) == ("task-1", 6, 2)
    assert (task["mixed"], task["pass_at_k"], task["uniform"]) == (0.5, 1.0, 0.5)
    assert task["pass_at_1"] == pytest.approx(2 / 3)
    evals = get(local, "/evals")
    assert evals["points"][0]["pass_at_1"] == 1.0 and evals["tasks"][0]["solved"] == [1.0]


def test_a_running_run_is_running(tiny: Path, client: Client) -> None:
    import fcntl

    with (tiny / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert get(client(), "")["run"]["state"] == "running"
    assert get(client(), "")["run"]["state"] == "done"


def test_what_a_judge_said_is_with_the_episode(tiny: Path, client: Client) -> None:
    judgement = Judgement(
        key="k",
        step=2,
        group_id="2/b",
        about=("2/b/0", "2/b/1"),
        messages=(Message(role="user", content="Which?"),),
        answers=("first", "second"),
        choice=1,
        opinion=Opinion(text="<b>The second</b>", judge="policy@1"),
    )
    with Journal(tiny / "journal.sqlite") as journal:
        journal.add_judgement(judgement)
    local = client()
    (note,) = get(local, "/trajectory", id="2/b/1")["notes"]
    assert note == {
        "title": "Judge policy@1 on 2/b/0, 2/b/1",
        "text": "answer: second\n<b>The second</b>",
    }
    assert get(local, "/trajectory", id="2/b/2")["notes"] == []


def test_grafana_asks_for_what_there_is(tiny: Path, client: Client) -> None:
    text = (files("palestra.deploy.dashboard") / "grafana.json").read_text()
    asked = set(re.findall(r"palestra_\w+", json.dumps(json.loads(text)["panels"])))
    served = client().get("/metrics").text
    assert asked == {"palestra_metric", "palestra_step", "palestra_step_finished_seconds"}
    assert all(f"# TYPE {name} gauge" in served for name in asked)


def test_the_shell_loads_every_module_at_once() -> None:
    static = files("palestra.deploy.dashboard") / "static"
    named = set(
        re.findall(r'modulepreload" href="/static/([^"]+)"', (static / "index.html").read_text())
    )
    there = {
        f"{part}/{file.name}" for part in ("lib", "views") for file in (static / part).iterdir()
    }
    assert named == there


@pytest.mark.parametrize(
    ("task", "environment"),
    [
        *[("repair/clamp/3", "repair"), ("openenv:http://127.0.0.1:80/x?seeds=9/3", None)],
        *[("verifiers:acme/words?n=1/0", None), ("alone", "swebench")],
    ],
)
def test_an_environment_is_told_by_its_tasks(task: str, environment: str | None) -> None:
    assert environment_of(task, "swebench") == (environment or task.rpartition("/")[0])
