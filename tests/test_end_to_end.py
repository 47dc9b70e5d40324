"""The whole path on real parts: vLLM, DeepSpeed, Ray and a sandbox, at its smallest size."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from palestra.rl.advantage import recorded
from palestra.rl.errors import UserError
from palestra.rl.journal import Journal
from palestra.rl.token_ratios import learner_logprobs
from palestra.rl.train import last_checkpoint

pytestmark = pytest.mark.timeout(1800)
FULL = os.environ.get("PALESTRA_TESTS") == "full"
PALESTRA = str(Path(sys.executable).with_name("palestra"))
FUNCTIONS = {
    "double": ("def double(n):\n    return n * 2\n", ["double(3) == 6", "double(0) == 0"]),
    "half": ("def half(n):\n    return n // 2\n", ["half(9) == 4", "half(2) == 1"]),
    "last": ("def last(xs):\n    return xs[-1]\n", ["last([1, 2]) == 2", "last([7]) == 7"]),
    "area": ("def area(a, b):\n    return a * b\n", ["area(2, 3) == 6", "area(4, 1) == 4"]),
    "over": ("def over(a, b):\n    return a > b\n", ["over(2, 1) == True", "over(1, 1) == False"]),
}
RECIPE = """
name = "smallest"
[tasks]
source = "repair:mbpp:{data}"
system_prompt = ""
[rewards.use.form]
function = "well_formed"
weight = 0.0
[policy.tiny]
vocab_size = 400
hidden_size = 64
intermediate_size = 128
layers = 2
heads = 2
kv_heads = 1
[policy.learner]
lr = 1e-3
[policy.engine]
max_num_seqs = 16
[policy.sft]
steps = 60
batch_size = 16
lr = 5e-3
[rollout]
dialect = "qwen3_coder"
max_response_length = 48
max_context_length = 320
max_turns = 4
[rl]
steps = 3
train_batch_size = 4
n_samples_per_prompt = 4
[rl.mismatch]
kept_episodes = 2
[rl.eval]
limit = 4
[rl.ptx]
coef = 0.1
samples_per_step = 4
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("smallest")
    rows = [
        {"task_id": n, "text": name, "code": code, "test_list": [f"assert {c}" for c in checks]}
        for n, (name, (code, checks)) in enumerate(FUNCTIONS.items())
    ]
    data = folder / "functions.jsonl"
    data.write_text("".join(json.dumps(row | {"test_setup_code": ""}) + "\n" for row in rows))
    recipe = folder / "smallest.toml"
    recipe.write_text(RECIPE.format(data=data))
    return recipe


def command(recipe: Path, run: Path) -> list[str]:
    return [PALESTRA, "train", str(recipe), "--run", str(run)]


@pytest.fixture(scope="module")
def finished(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "whole"
    done = subprocess.run(command(recipe, run), capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return run


def weights(run: Path) -> str:
    checkpoint = last_checkpoint(run / "checkpoints")
    assert checkpoint is not None
    return hashlib.sha256((checkpoint / "model.safetensors").read_bytes()).hexdigest()


def test_two_sides_agree_and_learn_from_what_was_sampled(
    finished: Path, is_metric: Callable[[str], bool]
) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["status"] == "done"
    assert summary["steps"] == 3
    assert set(summary["eval"]["before"]) == set(summary["eval"]["after"])
    with Journal(finished / "journal.sqlite", read_only=True) as journal:
        steps = dict(journal.steps())
        trajectories = journal.trajectories(1)
        scored = learner_logprobs(journal, 1)
    assert len(trajectories) == 16
    assert {turn.version for t in journal_turns(trajectories) for turn in t} == {0}
    assert any("actor/pg_loss" in metrics for metrics in steps.values()), "no group had a signal"
    for metrics in steps.values():
        assert [name for name in metrics if not is_metric(name)] == [], "not in docs/metrics.md"
        assert metrics.get("mismatch/logprob_abs_diff_max", 0.0) < 1e-4
        assert metrics["mismatch/probe_max"] < 1e-4
        assert 0 < metrics["reward/form/mean"] <= 1, "a recipe may name rewards"
        lanes = [v for k, v in metrics.items() if k.startswith("timing_s/") and "/step" not in k]
        assert sum(lanes) == pytest.approx(metrics["timing_s/step"], rel=0.03)
    assert len(scored) == 2
    for trajectory in trajectories:
        if ours := scored.get(trajectory.id):
            assert ours == pytest.approx(recorded(trajectory), abs=1e-4)
    for name in ("learning_curve.png", "metrics.jsonl", "config.toml", "versions.json"):
        assert (finished / name).stat().st_size > 0
    assert list((finished / "tensorboard").glob("events*"))


def journal_turns(trajectories: list) -> list:
    return [t.turns for t in trajectories]


def test_killed_at_random_points_it_ends_with_the_same_weights(
    finished: Path, recipe: Path, tmp_path: Path
) -> None:
    run = tmp_path / "killed"
    rng = random.Random(os.environ.get("PALESTRA_KILL_SEED", "1"))
    # One kill in the middle of playing a step, one soon after a step was finished.
    kill_when(recipe, run, lambda journal: len(journal.trajectories(1)) >= rng.randint(1, 12))
    before = trajectories_of(run)
    assert before, "the kill came before anything was played"
    kill_when(recipe, run, lambda journal: (journal.last_step() or 0) >= 1 + rng.randint(0, 1))
    done = subprocess.run(command(recipe, run), capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    after = trajectories_of(run)
    assert {key: after[key] for key in before} == before, "a finished trajectory was lost"
    assert after == trajectories_of(finished)
    assert weights(run) == weights(finished)
    rows = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert rows == [1, 2, 3]


def kill_when(recipe: Path, run: Path, reached) -> None:  # type: ignore[no-untyped-def]
    process = subprocess.Popen(
        command(recipe, run), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 400
    try:
        while True:
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline, "the run never got that far"
            with suppress(UserError), Journal(run / "journal.sqlite", read_only=True) as journal:
                if reached(journal):
                    break
            time.sleep(0.05)
        children = psutil.Process(process.pid).children(recursive=True)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    # Ray's own agents take minutes to notice; what holds a device must be gone at once.
    _, alive = psutil.wait_procs(children, timeout=60)
    left = [" ".join(process.cmdline()) for process in alive]
    assert not [name for name in left if "Actor" in name or "VLLM" in name], left


def trajectories_of(run: Path) -> dict[str, tuple[tuple[int, ...], ...]]:
    with Journal(run / "journal.sqlite", read_only=True) as journal:
        return {
            t.id: tuple(turn.token_ids for turn in t.turns)
            for step in (1, 2, 3)
            for t in journal.trajectories(step)
        }


def test_interrupted_it_leaves_nothing_behind_and_says_how_to_go_on(
    recipe: Path, tmp_path: Path
) -> None:
    run = tmp_path / "interrupted"
    process = subprocess.Popen(
        command(recipe, run), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "loading tasks" in line:
            stranger = joining(process.pid)
        if "supervised warm start" in line:
            break
    _, refused = stranger.communicate(timeout=120)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "to go on: palestra train" in rest
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
    assert json.loads((run / "summary.json").read_text())["status"] == "stopped"
    assert "Failed to connect" in refused, "its Ray takes anybody"


def joining(driver: int) -> subprocess.Popen[str]:
    """A process that tries to join the Ray cluster that ``driver`` has started for itself."""
    words: list[str] = []
    for child in psutil.Process(driver).children():
        with suppress(psutil.Error):
            words += child.cmdline()
    [address] = {w.partition("=")[2] for w in words if w.startswith("--gcs-address=")}
    join = f"import ray; ray.init({address!r}, logging_level='error')"
    return subprocess.Popen([sys.executable, "-c", join], stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[dict[str, str]]:
    """A Ray cluster of two nodes of one CPU each; the environment of a process that joins it."""
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": 128 << 20}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        cluster = Cluster(initialize_head=True, head_node_args=small | {"include_dashboard": False})
        try:
            cluster.add_node(**small)
            yield {**os.environ, "RAY_ADDRESS": cluster.address}
        finally:
            cluster.shutdown()


def with_ranks(recipe: Path, run: Path, policy: Path, count: int = 2) -> list[str]:
    """The command of a run that starts from ``policy``, with as many ranks and engines."""
    values = {
        "policy.num_gpus": count,
        "policy.model": policy,
        "policy.sft.steps": 0,
        "policy.learner.zero_stage": 3,
        "policy.learner.threads": 1,
    }
    settings = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    return [*command(recipe, run), *settings]


def test_two_ranks_and_two_engines_learn_what_one_learns(
    finished: Path, recipe: Path, tmp_path: Path
) -> None:
    run = tmp_path / "shared"
    start = with_ranks(recipe, run, finished / "sft")
    done = subprocess.run(start, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert_same_run(run, finished)


def assert_same_run(run: Path, expected: Path) -> None:
    """The same episodes, token by token, and the same losses within what rounding explains."""
    assert trajectories_of(run) == trajectories_of(expected)
    for one, two in zip(steps_of(expected), steps_of(run), strict=True):
        names = {name for name in one if name.startswith(("actor/", "ptx/", "reward/"))}
        assert {"actor/pg_loss", "actor/grad_norm", "ptx/nll"} <= names
        assert {name: two[name] for name in names} == pytest.approx(
            {name: one[name] for name in names}, rel=1e-3, abs=1e-5
        )
        assert two["mismatch/probe_max"] < 1e-4


def steps_of(run: Path) -> list[dict[str, float]]:
    with Journal(run / "journal.sqlite", read_only=True) as journal:
        return [dict(metrics) for _, metrics in journal.steps()]


def test_a_cluster_that_is_too_small_is_said_at_once(
    recipe: Path, two_nodes: dict[str, str], tmp_path: Path
) -> None:
    start = with_ranks(recipe, tmp_path / "large", tmp_path, count=3)
    done = subprocess.run(start, capture_output=True, text=True, timeout=200, env=two_nodes)
    assert done.returncode == 2
    assert done.stderr == (
        "palestra: policy.num_gpus is 3, so the run needs 3 bundles of 1 CPU; the Ray cluster has "
        "room for 2 on 2 nodes: add nodes or lower policy.num_gpus\n"
    )


@pytest.mark.skipif(not FULL, reason="a minute more: PALESTRA_TESTS=full")
def test_a_rank_that_is_killed_ends_the_run_which_then_goes_on(
    finished: Path, recipe: Path, two_nodes: dict[str, str], tmp_path: Path
) -> None:
    run = tmp_path / "killed"
    start = with_ranks(recipe, run, finished / "sft")
    process = subprocess.Popen(start, stderr=subprocess.PIPE, text=True, env=two_nodes)
    while True:
        assert process.poll() is None, "the run ended before a rank could be killed"
        with suppress(UserError), Journal(run / "journal.sqlite", read_only=True) as journal:
            if journal.last_step():
                break
        time.sleep(0.05)
    children = psutil.Process().children(recursive=True)
    ranks = [one for one in children if "LearnerActor" in " ".join(one.cmdline())]
    assert len(ranks) == 2
    ranks[-1].kill()
    _, said = process.communicate(timeout=200)
    assert process.returncode == 1
    assert re.search(r"rank [01] of the learner died", said)
    assert json.loads((run / "summary.json").read_text())["status"] == "failed"
    done = subprocess.run(start, capture_output=True, text=True, timeout=900, env=two_nodes)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert_same_run(run, finished)
