"""Trackers of other projects: what the journal holds is in them, and none is needed."""

from __future__ import annotations

import importlib.util
import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

from palestra.deploy.console import Console
from palestra.deploy.loggers import Loggers, check_names
from palestra.deploy.trackers import TRACKERS
from palestra.rl.errors import UserError
from palestra.rl.journal import Journal

WITH_PACKAGES = pytest.mark.skipif(
    os.environ.get("PALESTRA_TESTS") != "full",
    reason="PALESTRA_TESTS=full, and pip install wandb mlflow-skinny trackio: they are in no lock",
)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("WANDB_MODE", "MLFLOW_TRACKING_URI", "TRACKIO_DIR"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    path = tmp_path / "tiny"
    path.mkdir()
    return path


def logged(run: Path, name: str) -> None:
    """Two steps: one that the journal holds already, one that is logged."""
    with Journal(run / "journal.sqlite") as journal:
        journal.finish_step(1, {"reward/mean": 0.5, "odd": float("nan")})
        with Loggers([name], run, journal, Console()) as loggers:
            loggers.log(2, {"reward/mean": 0.75})


@pytest.mark.parametrize("name", TRACKERS)
def test_one_that_is_missing_is_said_before_any_work(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda wanted: None)
    with pytest.raises(UserError, match=f"pip install {name}"):
        check_names([name])


class Flaky:
    """A tracker whose server is there for one step only."""

    def __init__(self, run: Path, journal: Journal, console: Console) -> None:
        self.left = 1

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.left -= 1
        if self.left < 0:
            raise ConnectionError("no route\nto host")

    def close(self) -> None:
        raise AssertionError("closed although it has failed")


def test_a_server_that_is_lost_costs_its_own_copy_and_nothing_else(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TRACKERS, "wandb", Flaky)
    monkeypatch.setattr(importlib.util, "find_spec", lambda wanted: wanted)
    log = run / "console.log"
    with Journal(run / "journal.sqlite") as journal, Console(log) as console:
        with Loggers(["wandb", "jsonl"], run, journal, console) as loggers:
            for step in (1, 2, 3):
                loggers.log(step, {"reward/mean": 0.5})
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 3
    said = [line for line in log.read_text().splitlines() if "wandb" in line]
    assert len(said) == 1 and r"no route\nto host" in said[0]


def test_a_server_that_is_not_there_is_one_line_before_the_first_step(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*args: object) -> None:
        raise ConnectionError("refused")

    monkeypatch.setitem(TRACKERS, "mlflow", refused)
    monkeypatch.setattr(importlib.util, "find_spec", lambda wanted: wanted)
    with Journal(run / "journal.sqlite") as journal:
        with pytest.raises(UserError, match="mlflow cannot be opened: ConnectionError: refused"):
            Loggers(["mlflow"], run, journal, Console())


@WITH_PACKAGES
def test_mlflow(run: Path) -> None:
    import mlflow

    logged(run, "mlflow")
    client = mlflow.MlflowClient(tracking_uri=(run / "mlflow").as_uri())
    experiment = client.get_experiment_by_name("palestra").experiment_id
    (found,) = client.search_runs([experiment])
    history = client.get_metric_history(found.info.run_id, "reward/mean")
    assert [(own.step, own.value) for own in history] == [(1, 0.5), (2, 0.75)]


@WITH_PACKAGES
def test_wandb_is_offline(run: Path) -> None:
    logged(run, "wandb")
    logged(run, "wandb")  # as a resumed run does: the file is made anew
    (record,) = run.glob("wandb/offline-run-*/run-*.wandb")
    assert b"reward/mean" in record.read_bytes()


@WITH_PACKAGES
def test_trackio(run: Path) -> None:
    logged(run, "trackio")
    with closing(sqlite3.connect(run / "trackio" / "palestra.db")) as database:
        steps = database.execute("SELECT DISTINCT step FROM metrics ORDER BY step").fetchall()
    assert steps == [(1,), (2,)]
