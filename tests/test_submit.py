"""A user's own project as a job on a Ray cluster: its environments, its folder ``envs/``."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from palestra.deploy import jobs
from palestra.deploy.cli import main

BIN = Path(sys.executable).parent
FILES = {
    "envs/__init__.py": "raise RuntimeError('the folder of the project was not meant')\n",
    "acme_times.py": '''
from palestra.envs.math.env import Math

class Times(Math):
    """An environment of the project."""
    name = "acme/Times-v0"
''',
    "setup.cfg": """
[metadata]
name = acme-times
version = 1.0
[options]
py_modules = acme_times
[options.entry_points]
palestra.environments =
    acme/Times-v0 = acme_times:Times
""",
    "wrong.toml": '[tasks]\nsource = "acme/Nothing-v0"\n',
}


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A Ray head with a dashboard, on ports of its own."""
    port, dashboard, client, agent = free_ports(4)
    options = {
        "port": port,
        "dashboard-port": dashboard,
        "ray-client-server-port": client,
        "dashboard-agent-listen-port": agent,
        "num-cpus": 2,
        "object-store-memory": 128 << 20,
    }
    words = [str(BIN / "ray"), "start", "--head", "--block", "--include-dashboard=true"]
    words += ["--dashboard-host=127.0.0.1", *(f"--{k}={v}" for k, v in options.items())]
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    quiet = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    with (
        pytest.MonkeyPatch.context() as patch,
        subprocess.Popen(
            words, env={**os.environ, **quiet, "PATH": path}, stdout=subprocess.DEVNULL
        ) as head,
    ):
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
        try:
            for where in (f"{dashboard}/api/version", f"{agent}/api/local_raylet_healthz"):
                wait_for(f"http://127.0.0.1:{where}", head)
            yield f"http://127.0.0.1:{dashboard}"
        finally:
            head.terminate()
            head.wait(timeout=60)


def wait_for(url: str, head: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 200
    while True:
        assert head.poll() is None and time.monotonic() < deadline, f"{url}: no answer"
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            time.sleep(0.2)
        else:
            return


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose metadata is there, as after ``pip install -e .``, but not installed."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    setup = "from setuptools import setup; setup()"
    subprocess.run(
        [sys.executable, "-c", setup, "-q", "egg_info"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")
    return tmp_path


def test_a_project_with_a_folder_envs_and_a_plugin(address: str, project: Path) -> None:
    words = [str(BIN / "ray"), "job", "submit", "--address", address, "--working-dir", "."]
    words += ["--", "palestra", "tasks", "show", "acme/Times-v0"]
    done = subprocess.run(words, cwd=project, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "math/arithmetic/1/0" in done.stdout


def test_a_job_is_followed_to_its_end(
    address: str, project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["submit", "wrong.toml", "--address", address, "--set", "rl.steps=1"]
    assert main(words) == 1
    said = capfd.readouterr().out
    run = project / "runs" / "run"
    job = said.split("job ", 1)[1].split(":")[0]
    assert f"palestra train wrong.toml --run {run} --set rl.steps=1" in said
    assert "no environment 'acme/Nothing-v0'" in said and "acme/Times-v0" in said
    assert f"{job}: failed" in said

    assert main(["submit", "--status", job, "--address", address]) == 1
    assert main(["submit", "--logs", job, "--address", address]) == 0
    assert "no environment 'acme/Nothing-v0'" in capfd.readouterr().out
    assert main(["submit", "--stop", job, "--address", address]) == 0
    assert "has ended already" in capfd.readouterr().out
    assert main(["submit", "--status", "nobody", "--address", address]) == 2
    assert "there is no job nobody" in capfd.readouterr().err


def test_an_address_that_does_not_answer(
    project: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "ANSWER_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert main(["submit", "wrong.toml", "--address", url]) == 2
    line = capfd.readouterr().err
    assert line.count("\n") == 1 and "no answer within 0.5 s" in line
    monkeypatch.undo()
    [port] = free_ports(1)
    assert main(["submit", "--status", "x", "--address", f"http://127.0.0.1:{port}"]) == 2
    assert f"http://127.0.0.1:{port}" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--address", "ray://h:10001", "wrong.toml"], "write http://HOST:8265"),
        (["wrong.toml"], "give --address"),
        (["--address", "http://h:1"], "give a recipe, or one of"),
        (["--address", "http://h:1", "wrong.toml", "--stop", "x"], "give a recipe, or one of"),
        (["--address", "http://h:1", "../wrong.toml"], "wrong.toml"),
    ],
)
def test_wrong_use_is_one_line(
    project: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert main(["submit", *words]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and said in line
