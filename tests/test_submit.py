"""A user's own project as a job on a Ray cluster: its environments, its folder ``envs/``."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest

from palestra.deploy.cli import main
from palestra.rl.errors import UserError
from palestra.rl.journal import Journal

pytestmark = pytest.mark.timeout(900)
BIN = Path(sys.executable).parent
FILES = {
    "envs/__init__.py": "",
    "envs/times.py": '''
from palestra.envs.math.env import Math

class Times(Math):
    """An environment of the project."""
    name = "acme/Times-v0"

    def tasks(self, seed):
        return super().tasks(seed)[:4]
''',
    "envs/rewards.py": """
import asyncio, pathlib

async def spread(trajectory, box, *, held):
    while trajectory.id == "00003/0000/000" and pathlib.Path(held).exists():
        await asyncio.sleep(0.1)
    ids = [i for turn in trajectory.turns for i in turn.token_ids]
    return len(set(ids)) / len(ids)
""",
    "acme.egg-info/PKG-INFO": "Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n",
    "acme.egg-info/entry_points.txt": """
[palestra.environments]
acme/Times-v0 = envs.times:Times
""",
    "wrong.toml": '[tasks]\nsource = "envs.times:Tables"\n',
    "recipe.toml": """
name = "times"
[tasks]
source = "acme/Times-v0"
system_prompt = ""
[rewards.use.spread]
function = "envs.rewards:spread"
options = { held = "HERE/held" }
deadline = 600
[policy.tiny]
vocab_size = 400
hidden_size = 64
intermediate_size = 128
layers = 1
heads = 2
kv_heads = 1
[policy.engine]
max_num_seqs = 16
[policy.sft]
steps = 0
[rollout]
dialect = "qwen3_coder"
max_response_length = 16
max_context_length = 512
max_turns = 1
[rl]
steps = 3
train_batch_size = 2
n_samples_per_prompt = 2
save_freq = 1
[rl.eval]
splits = []
""",
}


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class Head:
    """A Ray head that takes jobs, at an address that it keeps when it is started anew."""

    def __init__(self) -> None:
        self.dashboard, self.agent = free_ports(2)
        self.url = f"http://127.0.0.1:{self.dashboard}"

    def start(self) -> None:
        """Returns when it takes jobs."""
        from ray.cluster_utils import Cluster

        options = {
            "num_cpus": 2,
            "object_store_memory": 128 << 20,
            "include_dashboard": True,
            "dashboard_port": self.dashboard,
            "dashboard_agent_listen_port": self.agent,
            "no_monitor": True,
        }
        self.cluster = Cluster(initialize_head=True, head_node_args=options)
        deadline = time.monotonic() + 200
        for where in (
            f"{self.url}/api/version",
            f"http://127.0.0.1:{self.agent}/api/local_raylet_healthz",
        ):
            while not answers(where):
                assert time.monotonic() < deadline, where
                time.sleep(0.2)

    def kill(self) -> None:
        """SIGKILL for the head and all that runs on it, as when a machine loses power."""
        started = self.cluster.head_node.all_processes.values()
        own = [psutil.Process(info.process.pid) for infos in started for info in infos]
        for process in [*own, *(child for one in own for child in one.children(recursive=True))]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.stop()

    def stop(self) -> None:
        """End what is left of it."""
        self.cluster.shutdown()


def answers(url: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(url, timeout=5):
        return True
    return False


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PATH", f"{BIN}{os.pathsep}{os.environ['PATH']}")
        patch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
        head = Head()
        head.start()
        try:
            yield head
        finally:
            head.stop()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose metadata is there, as after ``pip install -e .``, but not installed."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text.replace("HERE", str(tmp_path)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")
    return tmp_path


def ray_job(head: Head, *command: str) -> str:
    """What a job that ends well has printed."""
    words = [str(BIN / "ray"), "job", "submit", "--address", head.url, "--working-dir", "."]
    done = subprocess.run([*words, "--", *command], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def recorded(run: Path) -> tuple[dict[int, dict[str, float]], dict[str, tuple[object, ...]]]:
    """Steps with their metrics, times included; episodes with their tokens and rewards."""
    with Journal(run / "journal.sqlite", read_only=True) as journal:
        episodes = [t for step in range(1, 4) for t in journal.trajectories(step)]
        played = {t.id: (*(turn.token_ids for turn in t.turns), t.reward) for t in episodes}
        return {step: dict(metrics) for step, metrics in journal.steps()}, played


def in_step_3(run: Path) -> bool:
    with suppress(UserError), Journal(run / "journal.sqlite", read_only=True) as journal:
        return bool(journal.trajectories(3))
    return False


def test_a_run_goes_on_after_its_head_was_killed(
    head: Head, project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run, held = project / "runs" / "times", project / "held"
    held.touch()
    words = [str(BIN / "palestra"), "submit", "recipe.toml", "--address", head.url]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    submitted = subprocess.Popen(words, **pipes, text=True)
    try:
        while not in_step_3(run):
            assert submitted.poll() is None, submitted.communicate()
            time.sleep(0.05)
        head.kill()
        printed, said = submitted.communicate(timeout=100)
    finally:
        submitted.kill()
    assert submitted.returncode == 2
    assert "submit the same again" in said.splitlines()[-1]
    job = re.search(r"job (\w+): palestra train recipe\.toml --run (\S+)", printed)
    assert job and job[2] == str(run)
    steps, played = recorded(run)
    assert set(steps) == {1, 2} and 8 < len(played) < 12

    assert main(["submit", "--status", job[1], "--address", head.url]) == 2
    head.start()
    held.unlink()
    assert main(["submit", "--status", job[1], "--address", head.url]) == 2
    gone, anew = capfd.readouterr().err.splitlines()
    assert head.url in gone and "a head that was started anew knows none from before" in anew

    ray_job(head, "palestra", "train", "recipe.toml", "--run", str(run))
    after, all_played = recorded(run)
    assert set(after) == {1, 2, 3}
    assert {1: after[1], 2: after[2]} == steps, "a step was learned twice"
    assert len(all_played) == 12 and played.items() <= all_played.items()
    assert all(metrics["reward/spread/mean"] > 0 for metrics in after.values())
    rows = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert rows == [1, 2, 3]
    assert json.loads((run / "summary.json").read_text())["status"] == "done"


def test_a_job_is_followed_to_its_end(
    head: Head, project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["submit", "wrong.toml", "--address", head.url, "--set", "rl.steps=1"]
    assert main(words) == 1
    said, noise = capfd.readouterr()
    assert not noise
    run = project / "runs" / "run"
    job = said.split("job ", 1)[1].split(":")[0]
    assert f"palestra train wrong.toml --run {run} --set rl.steps=1" in said
    assert "module 'envs.times' has no attribute 'Tables'" in said
    assert f"{job}: failed" in said

    assert main(["submit", "--status", job, "--address", head.url]) == 1
    assert main(["submit", "--logs", job, "--address", head.url]) == 0
    assert "no attribute 'Tables'" in capfd.readouterr().out
    assert main(["submit", "--stop", job, "--address", head.url]) == 0
    assert "has ended already" in capfd.readouterr().out
    assert main(["submit", "--status", "nobody", "--address", head.url]) == 2
    assert "there is no job nobody" in capfd.readouterr().err
