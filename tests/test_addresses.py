"""Addresses of Ray clusters that are wrong, dead, silent or not ours: one line, and no hanging."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, aclosing, contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import TypeAlias

import grpc
import pytest
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from palestra.deploy import head, jobs
from palestra.deploy.cli import main
from palestra.rl.errors import UserError

Answer: TypeAlias = Callable[[ServerConnection, Request], Response | None]
Tail: TypeAlias = Callable[[ServerConnection], None]
JOB = {"type": "SUBMISSION", "submission_id": "x", "status": "RUNNING", "entrypoint": "palestra"}
ASKED = (["wrong.toml"], ["--status", "x"], ["--logs", "x"], ["--stop", "x"])


@pytest.fixture(autouse=True)
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wrong.toml").write_text('[tasks]\nsource = "acme/Nothing-v0"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")


@pytest.fixture
def silent() -> Iterator[int]:
    """A port where connections are accepted and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def dead() -> int:
    """A port where nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


@contextmanager
def server(answer: Answer, tail: Tail = lambda _: None) -> Iterator[str]:
    """An address where ``answer`` is given, and WebSockets are ``tail``'s."""
    with serve(tail, "127.0.0.1", 0, process_request=answer) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.socket.getsockname()[1]}"


def refused(capfd: pytest.CaptureFixture[str], *words: str) -> str:
    """What a command that cannot do its work says: one line."""
    assert main(["submit", *words]) == 2
    line = capfd.readouterr().err
    assert line.count("\n") == 1
    return line


@pytest.mark.parametrize("words", ASKED)
def test_nobody_answers(
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    silent: int,
    dead: int,
    words: list[str],
) -> None:
    url = f"http://127.0.0.1:{dead}"
    assert f"Failed to connect to Ray at address: {url}" in refused(capfd, *words, "--address", url)
    monkeypatch.setattr(jobs, "ANSWER_S", 0.5)
    said = refused(capfd, *words, "--address", f"http://127.0.0.1:{silent}")
    assert "no answer within 0.5 s" in said


@pytest.mark.parametrize(
    ("status", "text", "said"),
    [
        (HTTPStatus.UNAUTHORIZED, "Missing authentication token", "does not know our token"),
        (HTTPStatus.FORBIDDEN, "Invalid authentication token", "does not know our token"),
        (HTTPStatus.NOT_FOUND, "no such page", "Version check returned 404"),
        (HTTPStatus.OK, "<html>", "--address http://127.0.0.1"),
    ],
)
def test_somebody_else_answers(
    capfd: pytest.CaptureFixture[str], status: HTTPStatus, text: str, said: str
) -> None:
    with server(lambda connection, _: connection.respond(status, text)) as url:
        assert said in refused(capfd, "--status", "x", "--address", url)


def test_a_head_that_falls_silent_is_not_followed_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fallen, over = threading.Event(), threading.Event()

    def answer(connection: ServerConnection, request: Request) -> Response | None:
        if request.path.endswith("/tail"):
            return None
        if fallen.is_set():
            over.wait()
        body = {"ray_version": "2.60.0"} if request.path == "/api/version" else JOB
        return connection.respond(HTTPStatus.OK, json.dumps(body))

    def tail(connection: ServerConnection) -> None:
        connection.send("step 1\n")
        fallen.set()
        over.wait()

    seen: list[str] = []

    async def follow(client: jobs.Jobs) -> None:
        async with aclosing(client.follow("x")) as printed:
            seen.append(await anext(printed))
            await anext(printed)

    with server(answer, tail) as url:
        client = jobs.Jobs(url)
        monkeypatch.setattr(jobs, "ANSWER_S", 0.5)
        try:
            with pytest.raises(UserError, match=r"no answer within 0\.5 s"):
                asyncio.run(follow(client))
        finally:
            over.set()
    assert seen == ["step 1\n"]


def test_a_job_has_time_to_end_cleanly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sent: list[dict[str, object]] = []

    class Client:
        def __init__(self, address: str) -> None: ...

        def submit_job(self, *, entrypoint: str, runtime_env: dict[str, object]) -> str:
            sent.append(runtime_env)
            return "x"

    monkeypatch.setattr(jobs, "JobSubmissionClient", Client)
    assert jobs.Jobs("http://h:1").submit("palestra train", str(tmp_path)) == "x"
    assert sent[0]["env_vars"] == {"RAY_JOB_STOP_WAIT_TIME_S": "60"}, "Ray kills it after 3 s"


@pytest.mark.parametrize("who", ["silent", "dead"])
def test_a_run_does_not_wait_for_a_cluster_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, who: str
) -> None:
    monkeypatch.setattr(head, "ANSWER_S", 0.5)
    join(monkeypatch, request.getfixturevalue(who), "no Ray cluster answers there")


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (grpc.StatusCode.UNIMPLEMENTED, "no Ray cluster answers there"),
        (grpc.StatusCode.UNAUTHENTICATED, "does not know our token; set RAY_AUTH_MODE=token"),
    ],
)
def test_a_run_is_told_who_does_not_let_it_in(
    monkeypatch: pytest.MonkeyPatch, status: grpc.StatusCode, said: str
) -> None:
    class Refusing(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
            return grpc.unary_unary_rpc_method_handler(
                lambda _, context: context.abort(status, "no")
            )

    head = grpc.server(ThreadPoolExecutor(1), handlers=[Refusing()])
    port = head.add_insecure_port("127.0.0.1:0")
    head.start()
    try:
        join(monkeypatch, port, said)
    finally:
        head.stop(0)


def join(monkeypatch: pytest.MonkeyPatch, port: int, said: str) -> None:
    """Be refused by what listens there."""
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    with pytest.raises(UserError, match=f"RAY_ADDRESS 127.0.0.1:{port}: .*{said}"):
        asyncio.run(AsyncExitStack().enter_async_context(head.connected()))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--address", "ray://h:10001", "wrong.toml"], "write http://HOST:8265"),
        (["wrong.toml"], "give --address"),
        (["--address", "http://h:1"], "give a recipe, or one of"),
        (["--address", "http://h:1", "wrong.toml", "--stop", "x"], "give a recipe, or one of"),
        (["--address", "http://h:1", "../wrong.toml"], "wrong.toml"),
        (["--address", "http://h:1", "wrong.toml", "--set", "name=../x"], "not a folder name"),
    ],
)
def test_wrong_use(capfd: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    assert said in refused(capfd, *words)
