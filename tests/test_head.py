"""Ray's head, when it does not come up and when it goes: a line, a summary, no waiting."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from types import SimpleNamespace as Record

import pytest
import ray

from palestra.deploy import head
from palestra.deploy.cli import main
from palestra.deploy.dashboard.runs import Runs, State
from palestra.rl.errors import InfraError

TIMED_OUT = Exception("The current node timed out during startup. This could happen because\n...")
NO_GCS = RuntimeError("Failed to start GCS.  Last 1 lines of error files:\nC address in use\n.")
TOO_LONG = OSError("AF_UNIX path length cannot exceed 107 bytes: /a/b")
DENIED = PermissionError(13, "Permission denied", "/tmp/ray/session_1")


@pytest.fixture(autouse=True)
def own_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "x")
    monkeypatch.setenv("RAY_TMPDIR", "/elsewhere")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (TIMED_OUT, 1, "Ray did not come up: The current node timed out"),
        (
            NO_GCS,
            1,
            "error files: C address in use; its logs are in /elsewhere/ray/session_latest",
        ),
        (ConnectionError("no GCS"), 1, "Ray did not come up: no GCS"),
        (TOO_LONG, 2, "cannot exceed 107 bytes: /a/b; set RAY_TMPDIR to a short path"),
        (DENIED, 2, "Ray cannot work in /elsewhere/ray: [Errno 13] Permission denied"),
        (ValueError("invalid literal for int()"), 2, "not take its settings: invalid literal"),
    ],
)
def test_a_run_whose_ray_does_not_come_up_ends_with_one_line_and_can_go_on(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    raised: Exception,
    code: int,
    said: str,
) -> None:
    def init(**settings: object) -> None:
        raise raised

    monkeypatch.setattr(ray, "init", init)
    Path("x.toml").write_text('[tasks]\nsource = "acme/Nothing-v0"\n')
    for _ in range(2):
        assert main(["train", "x.toml", "--run", "runs/x"]) == code
        line = capfd.readouterr().err
        assert said in line and line.startswith("palestra: ") and line.count("\n") == 1
    run = Path("runs/x")
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert f"palestra: {summary['reason']}\n" == line
    assert summary["reason"] in (run / "console.log").read_text().splitlines()
    condition = Runs(Path("runs")).condition("x")
    assert condition.state is State.FAILED and condition.problem == summary["reason"]


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A cluster that is there without Ray; what was asked of Ray at the end."""
    asked: list[str] = []

    def init(**settings: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    monkeypatch.setattr(ray, "shutdown", lambda: asked.append("shutdown"))
    monkeypatch.setattr(head, "EVERY_S", 0.01)
    return asked


def at(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    context = Record(gcs_address=f"127.0.0.1:{port}")
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)


def test_a_head_that_goes_ends_the_run_before_ray_does(
    monkeypatch: pytest.MonkeyPatch, joined: list[str]
) -> None:
    closed: list[str] = []

    async def run() -> None:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        at(monkeypatch, server.sockets[0].getsockname()[1])
        async with head.connected() as gpu:
            assert not gpu
            assert await head.is_there()
            server.close()
            await server.wait_closed()
            assert not await head.is_there()
            try:
                await asyncio.Event().wait()
            finally:
                closed.append("what was open")

    with pytest.raises(InfraError, match=r"the head of the Ray cluster has gone.*same command"):
        asyncio.run(asyncio.wait_for(run(), 60))
    assert closed and not joined, "Ray would wait for its head"


def test_a_head_that_is_restarted_in_time_is_not_lost(
    monkeypatch: pytest.MonkeyPatch, joined: list[str]
) -> None:
    there = iter([*[False] * (head.MISSED - 1), True] * 2)
    asked_enough = asyncio.Event()

    async def is_there() -> bool:
        answer = next(there, None)
        if answer is None:
            asked_enough.set()
        return answer is not False

    async def run() -> None:
        before = signal.getsignal(signal.SIGTERM)
        async with head.connected():
            assert signal.getsignal(signal.SIGTERM) is before, "who asks us to end is not heard"
            await asked_enough.wait()

    monkeypatch.setattr(head, "is_there", is_there)
    asyncio.run(asyncio.wait_for(run(), 60))
    assert joined == ["shutdown"]
