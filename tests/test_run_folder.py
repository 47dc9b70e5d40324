"""Run folders: one driver at a time, one configuration, files that are whole."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from palestra.deploy.atomic import write_text
from palestra.deploy.config import RunConfig
from palestra.deploy.config_file import load_recipe
from palestra.deploy.run_folder import RunFolder, is_running
from palestra.deploy.summary import Summary, summarize
from palestra.rl.errors import UserError
from palestra.rl.journal import EvalRow, Journal
from palestra.rl.types import Trajectory

HOLDER = """
import sys
from pathlib import Path
from palestra.deploy.config import RunConfig
from palestra.deploy.run_folder import RunFolder
folder = RunFolder(Path(sys.argv[1]), RunConfig())
print("held", flush=True)
sys.stdin.read()
"""


def _config(**rl: object) -> RunConfig:
    return RunConfig.model_validate({"rl": rl})


def test_a_fresh_folder_says_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "x"
    with RunFolder(path, _config(steps=3)) as run:
        assert not run.resumed
        assert load_recipe(path / "config.toml").config == _config(steps=3)
        versions = json.loads((path / "versions.json").read_text())
        assert versions["packages"]["pydantic"] and versions["python"]


def test_resuming(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with RunFolder(path, _config(steps=3)) as run:
        Journal(run.journal).close()
    with RunFolder(path, _config(steps=5, save_freq=2)) as run:
        assert run.resumed
    assert load_recipe(path / "config.toml").config.rl.steps == 5
    with RunFolder(tmp_path / "ignored", _config(), resume=str(path)) as run:
        assert run.path == path and run.resumed


def test_resuming_under_another_configuration_names_the_keys(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "x", _config()) as run:
        Journal(run.journal).close()
    other = _config(steps=9, temperature=0.5, budget={"default": 7})
    with pytest.raises(UserError) as raised:
        RunFolder(tmp_path / "x", other)
    text = str(raised.value)
    assert "rl.temperature (was 1.0, is 0.5)" in text and "rl.budget.default" in text
    assert "rl.steps" not in text and "\n" not in text
    assert load_recipe(tmp_path / "x" / "config.toml").config == _config()


def test_refusals(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "x", _config()) as run:
        Journal(run.journal).close()
    (tmp_path / "file").write_text("")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("")
    for path, resume, says in (
        (tmp_path / "x", "never", "holds a run already"),
        (tmp_path / "x", str(tmp_path / "none"), "no journal here"),
        (tmp_path / "file", "auto", "cannot be a run folder"),
        (tmp_path / "home", "auto", "not a run folder"),
    ):
        with pytest.raises(UserError, match=says):
            RunFolder(path, _config(), resume=resume)
    with RunFolder(tmp_path / "x", _config()):
        pass  # no refusal has kept the lock


def test_two_processes_never_share_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "x"
    assert not is_running(path)
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout and holder.stdout.readline() == "held\n"
        assert is_running(path)
        with pytest.raises(UserError, match=f"process {holder.pid} is using"):
            RunFolder(path, RunConfig())
        holder.kill()
    assert not is_running(path)
    RunFolder(path, RunConfig()).close()


def test_summary_has_the_shape_that_scripts_rely_on(
    tmp_path: Path, make_trajectory: Callable[..., Trajectory]
) -> None:
    with RunFolder(tmp_path / "x", _config()) as run, Journal(run.journal) as journal:
        for step in range(1, 8):
            metrics = {"reward/mean": step / 10, "response_length/sum": 100, "timing_s/learn": 0.5}
            journal.finish_step(step, {**metrics, "mismatch/logprob_abs_diff": step * 1e-7})
        row = EvalRow(step=0, split="s", task_id="t", sample=0, solved=False)
        journal.add_eval(row)
        journal.add_eval(replace(row, step=7, solved=True))
        path = run.write_summary(summarize(journal, status="done", wall_s=2.5, checkpoint="c"))
    found = json.loads(path.read_text())
    assert found["status"] == "done" and found["steps"] == 7 and found["checkpoint"] == "c"
    assert found["eval"]["before"]["s"]["pass@1"] == 0.0
    assert found["eval"]["after"]["s"]["pass@1"] == 1.0
    assert found["eval"]["after"]["s"]["n"] == 1 and len(found["eval"]["after"]["s"]["ci95"]) == 2
    assert found["reward"] == pytest.approx({"first5": 0.3, "last5": 0.5})
    assert found["timing_s"] == {"learn": 3.5} and found["tokens"] == 700
    assert found["mismatch_max"] == pytest.approx(7e-7) and found["wall_s"] == 2.5


def test_summary_of_nothing(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        summary = summarize(journal, status="failed", wall_s=0.0, checkpoint="")
    assert summary == Summary(status="failed", steps=0, rewards=[])
    assert (
        Summary(status="done", steps=1, mismatch_max=float("nan")).to_json()["mismatch_max"] is None
    )


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "new \ud800")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
