"""Who may ask: tokens, cookies, names of hosts, headers, and what the command refuses."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from palestra.deploy.cli import main
from palestra.deploy.dashboard.security import COOKIE, HEADERS, Access

TOKEN = "a-token-of-the-test-0123456789"
Client = Callable[..., TestClient]


def test_every_answer_has_the_headers(tiny: Path, client: Client) -> None:
    local = client()
    for path in ("/", "/api/runs", "/api/runs/none", "/static/index.html", "/nothing"):
        answer = local.get(path)
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS, path
    assert "'unsafe" not in HEADERS["Content-Security-Policy"]


def test_without_a_token_only_local_names_are_answered(tiny: Path, client: Client) -> None:
    for name, status in (("localhost:80", 200), ("127.0.0.1", 200), ("[::1]:9", 200)):
        assert client().get("/api/runs", headers={"Host": name}).status_code == status
    for name in ("evil.example", "localhost.evil.example:80", "127.0.0.1.evil.example", ""):
        assert client().get("/api/runs", headers={"Host": name}).status_code == 421


def test_a_token_opens_a_session(tiny: Path, client: Client) -> None:
    browser = client(Access(token=TOKEN, secure=True), base="https://box.example")
    assert browser.get("/").status_code == 200 and browser.get("/api/runs").status_code == 401
    for path in ("/metrics", "/api/openapi.json", "/api/runs/tiny/trajectories"):
        assert browser.get(path).status_code == 401, path
    for wrong in ("", TOKEN[:-1], TOKEN + "0", "é"):
        assert browser.post("/api/session", json={"token": wrong}).status_code == 401
        bearer = {"Authorization": f"Bearer {wrong}".encode()}
        assert browser.get("/api/runs", headers=bearer).status_code == 401
    stolen = {"Cookie": f"{COOKIE}={TOKEN}"}
    assert browser.get("/api/runs", headers=stolen).status_code == 401
    answer = browser.post("/api/session", json={"token": TOKEN})
    cookie = answer.headers["set-cookie"].lower()
    assert all(word in cookie for word in ("httponly", "samesite=strict", "secure"))
    assert TOKEN not in cookie
    assert browser.get("/api/runs").status_code == 200
    ended = {"Cookie": f"{COOKIE}={browser.cookies[COOKIE]}"}
    assert browser.get("/api/runs", headers=ended).status_code == 200
    browser.delete("/api/session")
    assert browser.get("/api/runs", headers=ended).status_code == 401
    bearer = {"Authorization": f"bearer {TOKEN}".encode()}
    assert browser.get("/metrics", headers=bearer).status_code == 200


@pytest.mark.parametrize(
    ("arguments", "token", "said"),
    [
        (["--host", "0.0.0.0"], "", "so a token is needed"),
        (["--host", "0.0.0.0"], TOKEN, "travel unprotected"),
        (["--behind-proxy"], "", "so a token is needed"),
        (["--host", "0.0.0.0", "--tls-cert", "c.pem"], TOKEN, "belong together"),
        (["--tls-cert", "c.pem", "--tls-key", "k.pem"], "", "there is no such file"),
        ([], "short", "16 or more"),
        (["--token-file", "none"], "", "cannot be read"),
        (["--host", "no.such.host.invalid"], TOKEN, ""),
        (["--port", "99999"], "", "not a port"),
    ],
)
def test_wrong_use_is_one_line(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    token: str,
    said: str,
) -> None:
    monkeypatch.setenv("PALESTRA_DASHBOARD_TOKEN", token)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder.parent / "cache"))
    assert main(["dashboard", str(folder), *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_a_port_in_use_and_a_missing_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder.parent / "cache"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["dashboard", str(folder), "--port", port]) == 2
    error = capsys.readouterr().err
    assert "choose another --port" in error and error.count("\n") == 1
    assert main(["dashboard", str(folder / "none")]) == 2
    assert "there is no such folder" in capsys.readouterr().err
