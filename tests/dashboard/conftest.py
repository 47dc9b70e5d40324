"""A folder of runs, and a server of it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeAlias

import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

from palestra.deploy.dashboard.app import create_app
from palestra.deploy.dashboard.runs import Runs
from palestra.deploy.dashboard.security import Access
from palestra.rl.journal import EvalRow, Journal
from palestra.rl.types import Trajectory

LOCAL = "http://localhost"

MakeTrajectory: TypeAlias = Callable[..., Trajectory]
MakeClient: TypeAlias = Callable[..., TestClient]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder of runs."""
    path = tmp_path / "runs"
    path.mkdir()
    return path


@pytest.fixture
def tiny(folder: Path, make_trajectory: MakeTrajectory) -> Path:
    """A run of two steps with two groups of three: all solved, and one of three; one lost."""
    path = folder / "tiny"
    path.mkdir()
    (path / "config.toml").write_text('[rl]\nsteps = 9\n\n[tasks]\nsource = "repair:"\n')
    (path / "summary.json").write_text('{"status": "done"}')
    with Journal(path / "journal.sqlite") as journal:
        for step in (1, 2):
            for group, rewards in (("a", (1.0, 1.0, 1.0)), ("b", (1.0, 0.0, 0.0))):
                for sample, reward in enumerate(rewards):
                    name = f"{step}/{group}/{sample}"
                    journal.add_trajectory(
                        make_trajectory(name, group=f"{step}/{group}", step=step, reward=reward)
                    )
            journal.finish_step(
                step,
                {"reward/mean": 2 / 3, "timing_s/step": 4.0, "timing_s/learn": 1.0, "odd": 1 / step}
                | ({"nan": float("nan")} if step == 2 else {}),
            )
        journal.add_trajectory(make_trajectory("2/c/0", group="2/c", step=2, reward=None))
        halved = {"2/b/0": 0.5}
        journal.set_meta(
            "shaped/2",
            {
                name: {"total": total, "parts": {"tests_pass": 1.0}, "shaping": {"toggle": -0.5}}
                for name, total in halved.items()
            },
        )
        evaluated = make_trajectory("eval/held/repair/x/0", group="eval/held/repair/x", step=2)
        row = EvalRow(step=2, split="held", task_id="repair/x", sample=0, solved=True)
        journal.add_eval(row, evaluated)
    return path


@pytest.fixture
def client(folder: Path, tmp_path: Path) -> Iterator[MakeClient]:
    """Makes clients of a server of the folder."""
    opened: list[TestClient] = []

    def make(access: Access | None = None, *, base: str = LOCAL) -> TestClient:
        cache = tmp_path / "cache"
        cache.mkdir(exist_ok=True)
        app = create_app(Runs(folder), cache, access or Access())
        made = TestClient(app, base_url=base)
        made.__enter__()
        opened.append(made)
        return made

    yield make
    for made in opened:
        made.__exit__(None, None, None)


@pytest.fixture
def serve(folder: Path, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Starts servers of the folder, each on a port of its own; gives their addresses."""
    with ExitStack() as running:

        def start(access: Access | None = None) -> str:
            cache = tmp_path / "cache"
            cache.mkdir(exist_ok=True)
            app = create_app(Runs(folder), cache, access or Access())
            return running.enter_context(_served(app))

        yield start


@contextmanager
def _served(app: FastAPI) -> Iterator[str]:
    config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(timeout=30.0)


@pytest.fixture
def server(serve: Callable[..., str]) -> str:
    """The address of a server of the folder."""
    return serve()
