"""The agent of a box and our end of its connection, with a supervisor that echoes. No cluster."""

from __future__ import annotations

import asyncio
import http.client
import os
import random
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest

from palestra.sandbox import kubernetes_agent as agent
from palestra.sandbox import kubernetes_http as client
from palestra.sandbox.kubernetes_http import HttpChannel, Way
from palestra.sandbox.kubernetes_injection import digest

PATIENCE_S = 30.0


Answer = tuple[int, bytes, bool]


class Agent:
    """An agent that runs, and the supervisor's end of its socket."""

    def __init__(self, pid: int, port: int, token: str, peer: socket.socket) -> None:
        self.pid = pid
        self.port = port
        self.token = token
        self.peer = peer

    def ask(self, method: str, path: str, data: bytes = b"", token: str | None = None) -> Answer:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        headers = {agent.TOKEN: self.token if token is None else token}
        connection.request(method, path, data, headers)
        found = connection.getresponse()
        body = found.read()
        connection.close()
        return found.status, body, agent.ENDED in found.headers


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Agent]:
    """The program as its container runs it."""
    with started(tmp_path, os.getuid()) as found:
        yield found


@contextmanager
def started(folder: Path, user: int, heard: bytes = b"") -> Iterator[Agent]:
    """With ``heard``, it is told whose it is by that on its standard input."""
    token, path = secrets.token_urlsafe(32), folder / "s"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    known = agent.LATER if heard else digest(token)
    told = ["60", "127.0.0.1", str(port), str(path), str(user), known]
    command = [sys.executable, "-I", "-S", agent.__file__, *told]
    pipe = subprocess.PIPE
    with (
        subprocess.Popen(command, stdin=pipe, stdout=pipe) as process,
        socket.socket(socket.AF_UNIX) as peer,
    ):
        try:
            assert process.stdin and process.stdout
            process.stdin.write(heard.replace(b"TOKEN", digest(token).encode()))
            process.stdin.flush()
            until(lambda: peer.connect_ex(str(path)) == 0)
            assert not heard or process.stdout.readline() == agent.HEARD
            yield Agent(process.pid, port, token, peer)
        finally:
            process.kill()


@pytest.fixture
def echo(running: Agent) -> Agent:
    """An agent whose supervisor says what it is told."""

    def answer() -> None:
        with suppress(OSError):
            while data := running.peer.recv(1 << 16):
                running.peer.sendall(data)

    threading.Thread(target=answer, daemon=True).start()
    until(lambda: reachable(running))
    return running


def test_what_is_passed_comes_back_as_it_was(echo: Agent) -> None:
    data = random.Random(1).randbytes(5 << 20)

    async def use() -> bytes:
        async with connected(echo.port, echo.token) as channel:
            return await echoed(channel, data)

    assert asyncio.run(use()) == data


@pytest.mark.parametrize("seed", range(3))
def test_connections_that_break_at_any_moment_lose_and_repeat_nothing(
    echo: Agent, seed: int
) -> None:
    chance = random.Random(seed)
    data = chance.randbytes(8 << 20)

    async def use() -> tuple[bytes, int]:
        async with breaking(echo.port, chance) as (port, cuts):
            async with connected(port, echo.token) as channel:
                return await echoed(channel, data), len(cuts)

    found, cuts = asyncio.run(use())
    assert cuts > 3 and found == data


def test_requests_that_are_repeated_do_nothing_twice(echo: Agent) -> None:
    for _ in range(2):
        assert echo.ask("POST", "/in?at=0", b"abc")[0] == 204
    assert echo.ask("POST", "/in?at=1", b"bcd")[0] == 204
    until(lambda: echo.ask("GET", "/out?at=0")[1] == b"abcd")
    assert echo.ask("GET", "/out?at=0")[1] == b"abcd"
    assert echo.ask("GET", "/out?at=2")[1] == b"cd"
    for path in ("/out?at=0", "/out?at=9", "/out?at=-1"):
        assert echo.ask("GET", path)[0] == 409, "it was acknowledged, or never was"
    assert echo.ask("POST", "/in?at=9", b"x")[0] == 409, "bytes before it are missing"


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_nobody_without_the_token_gets_in(echo: Agent, method: str) -> None:
    almost = echo.token[:-1] + chr(ord(echo.token[-1]) ^ 1)
    for token in ("", almost, digest(echo.token), echo.token + " x", "\xff" * 50):
        assert echo.ask(method, "/in?at=0", b"forged", token) == (403, b"", False)
    assert echo.ask("POST", "/in?at=0", b"ours")[0] == 204
    assert echo.ask("GET", "/out?at=0")[1] == b"ours"


def test_the_token_is_nowhere_in_the_process(running: Agent) -> None:
    until(lambda: reachable(running))
    for name in ("cmdline", "environ"):
        assert running.token.encode() not in Path(f"/proc/{running.pid}/{name}").read_bytes()


@pytest.mark.parametrize("noise", [b"", b"GET / HTTP/1.1\r\n", b"\x00\xff" * 500, b"A" * 70_000])
def test_a_flood_of_strangers_keeps_nobody_out(echo: Agent, noise: bytes) -> None:
    with lines(echo.port, 300, noise):
        held = Path(f"/proc/{echo.pid}/fd")
        assert echo.ask("POST", "/in?at=0", b"abc")[0] == 204
        assert echo.ask("GET", "/out?at=0")[1] == b"abc"
        # Sooner than they would be tired of.
        until(lambda: len(list(held.iterdir())) < 100, agent._STRANGER_S / 2)


def test_a_driver_that_is_there_is_not_taken_for_a_stranger(echo: Agent) -> None:
    async def use() -> bytes:
        async with connected(echo.port, echo.token) as channel:
            # Its next answer is being waited for while they come.
            receiving = asyncio.create_task(channel.receive())
            await asyncio.sleep(0)
            with lines(echo.port, 100, b""):
                await channel.send(b"still here")
                return await receiving

    assert asyncio.run(use()) == b"still here"


@pytest.mark.parametrize("size", ["-1", str(agent.PART + 1), "9" * 30, "x"])
def test_bodies_have_a_size_that_is_bounded(echo: Agent, size: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", echo.port, timeout=PATIENCE_S)
    connection.putrequest("POST", "/in?at=0")
    connection.putheader(agent.TOKEN, echo.token)
    connection.putheader("Content-Length", size)
    connection.endheaders()
    with suppress(http.client.HTTPException, ConnectionError):
        assert connection.getresponse().status == 413
    connection.close()
    assert echo.ask("POST", "/in?at=0", b"abc")[0] == 204


def test_the_end_of_the_supervisor_is_told_after_its_last_words(running: Agent) -> None:
    running.peer.sendall(b"last words")
    running.peer.close()
    until(lambda: reachable(running))

    async def use() -> list[bytes]:
        async with connected(running.port, running.token) as channel:
            return [await channel.receive(), await channel.receive()]

    assert asyncio.run(use()) == [b"last words", b""]


def test_good_bye_ends_the_supervisors_connection(running: Agent) -> None:
    async def use() -> None:
        async with connected(running.port, running.token) as channel:
            await channel.left()
            await channel.left()
            with pytest.raises(OSError, match="closed"):
                await channel.send(b"x")

    asyncio.run(use())
    assert running.peer.recv(1) == b""


def test_an_agent_that_is_gone_is_noticed(echo: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_RETRY_S", 0.2)

    async def use() -> None:
        async with connected(echo.port, echo.token) as channel:
            assert await echoed(channel, b"abc") == b"abc"
            os.kill(echo.pid, 9)
            with pytest.raises(OSError, match="not reached"):
                await channel.receive()

    asyncio.run(use())


def test_only_one_may_be_the_supervisor(running: Agent, tmp_path: Path) -> None:
    until(lambda: reachable(running))
    assert not (tmp_path / "s").exists(), "nobody can connect any more"


@pytest.mark.parametrize(
    ("said", "ours"),
    [
        (b"TOKEN\n", True),
        (b"TOKEN\n" + digest("another").encode() + b"\n", True),
        (digest("another").encode() + b"\nTOKEN\n", False),
        (b"\nTOKEN\n", False),
    ],
)
def test_an_agent_that_was_kept_warm_believes_the_first_line(
    tmp_path: Path, said: bytes, ours: bool
) -> None:
    with started(tmp_path, os.getuid(), said) as found:
        until(lambda: reachable(found))
        assert found.ask("POST", "/in?at=0", b"abc")[0] == (204 if ours else 403)
        assert found.ask("POST", "/in?at=0", b"abc", "")[0] == 403


def test_nobody_comes_and_the_agent_ends(tmp_path: Path) -> None:
    told = ["1", "127.0.0.1", "0", str(tmp_path / "s"), str(os.getuid()), agent.LATER]
    command = ["unshare", "--pid", "--fork", sys.executable, "-I", "-S", agent.__file__, *told]
    if os.getuid():
        command.insert(1, "--user")
    subprocess.run(command, check=True, timeout=PATIENCE_S)


def test_another_user_is_no_supervisor(tmp_path: Path) -> None:
    with started(tmp_path, os.getuid() + 1) as found:
        assert found.peer.recv(1) == b"", "it hung up"
        assert (tmp_path / "s").exists() and not reachable(found)


def test_a_driver_is_gone_when_its_last_connection_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "AWAY_S", 0.0)
    with served() as (session, port, token):
        assert not session.deserted(), "it has not come yet"
        with socket.create_connection(("127.0.0.1", port)) as driver:
            driver.sendall(f"GET /out?at=0 HTTP/1.1\r\n{agent.TOKEN}: {token}\r\n\r\n".encode())
            until(lambda: session._present == 1)
            assert not session.deserted()
        # Its answer was being waited for: nobody reads from that connection.
        until(session.deserted)


def test_a_driver_that_is_silent_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    with served() as (session, _, _):
        session.here(1)
        assert not session.deserted()
        monkeypatch.setattr(agent, "SILENCE_S", -1.0)
        assert session.deserted()


def test_what_nobody_fetches_is_bounded() -> None:
    with served() as (session, _, _), suppress(TimeoutError):
        session.other.settimeout(0.5)  # type: ignore[attr-defined]
        with pytest.raises(TimeoutError):
            session.other.sendall(bytes(64 << 20))  # type: ignore[attr-defined]
        assert len(session._kept) < 8 << 20


@contextmanager
def served() -> Iterator[tuple[agent.Session, int, str]]:
    """An agent in threads of this process."""
    ours, other = socket.socketpair()
    token = secrets.token_urlsafe(32)
    session = agent.Session(ours)
    session.other = other  # type: ignore[attr-defined]
    server = agent.Server("127.0.0.1", 0, session, digest(token))
    for work in (server.serve_forever, session.collect):
        threading.Thread(target=work, daemon=True).start()
    yield session, server.server_port, token
    session.end()
    server.shutdown()
    server.server_close()
    ours.close()
    other.close()


@asynccontextmanager
async def connected(port: int, token: str) -> AsyncIterator[HttpChannel]:
    async def headers() -> Mapping[str, str]:
        return {}

    way = Way(url=f"http://127.0.0.1:{port}", headers=headers)
    channel = await HttpChannel.opened(way, token, patience_s=PATIENCE_S)
    yield channel
    await channel.left()


async def echoed(channel: HttpChannel, data: bytes) -> bytes:
    async def send() -> None:
        for at in range(0, len(data), 60_000):
            await channel.send(data[at : at + 60_000])

    sending, found = asyncio.create_task(send()), b""
    while len(found) < len(data):
        found += await channel.receive()
    await sending
    return found


@asynccontextmanager
async def breaking(port: int, chance: random.Random) -> AsyncIterator[tuple[int, list[int]]]:
    """A port that leads to ``port`` over connections that break after some bytes; how many did."""
    cuts: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.transport.abort()
            return
        left = [chance.randrange(1, 4 * agent.PART)]

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with suppress(OSError):
                while (data := await source.read(1 << 14)) and left[0] > 0:
                    left[0] -= len(data)
                    sink.write(data[: len(data) + min(0, left[0])])
                    await sink.drain()

        pumps = [
            asyncio.create_task(pump(reader, there)),
            asyncio.create_task(pump(there_reader, writer)),
        ]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        cuts.append(left[0])
        for one in (*pumps, writer.transport, there.transport):
            (one.abort if isinstance(one, asyncio.WriteTransport) else one.cancel)()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], cuts


@contextmanager
def lines(port: int, count: int, noise: bytes) -> Iterator[None]:
    """So many connections that say ``noise`` and then nothing."""
    held = []
    for _ in range(count):
        with suppress(OSError):
            held.append(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S))
            held[-1].sendall(noise)
    yield
    for one in held:
        one.close()


def reachable(found: Agent) -> bool:
    with socket.socket() as trying:
        return trying.connect_ex(("127.0.0.1", found.port)) == 0


def until(condition: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)
