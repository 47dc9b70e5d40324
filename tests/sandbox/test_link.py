"""The connection to a supervisor, with a stand-in at its other end."""

from __future__ import annotations

import ast
import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from palestra.rl.errors import BoxDied, PathRefused
from palestra.sandbox import kubernetes_stream
from palestra.sandbox import link as link_module
from palestra.sandbox.base import BoxSpec, TransportError
from palestra.sandbox.inbox import BYE, CANCEL, CHUNK, DATA, END, FRAME, NO_PROCESS, PING
from palestra.sandbox.inbox_work import SIZES
from palestra.sandbox.link import BOOT, Link, LinkLost, Unfinished
from palestra.sandbox.remote import Fate, RemoteBox, configuration
from palestra.sandbox.shipping import packed

CONFIG = configuration(BoxSpec(), machine="x86_64", ttl=60.0, orphan_s=0.0)
OK = bytes(4)


def frame(number: int, kind: int, data: bytes = b"") -> bytes:
    return FRAME.pack(number, kind, len(data)) + data


def answer(number: int, head: object, body: bytes = b"") -> bytes:
    text = json.dumps(head).encode()
    whole = frame(number, DATA, len(text).to_bytes(4, "big") + text + body)
    return whole + frame(number, END, OK)


class Peer:
    """A channel, and what a test does at its other end."""

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[bytes] = asyncio.Queue()
        self.sent = bytearray()
        self.closed = False
        self._more = asyncio.Event()

    async def send(self, data: bytes) -> None:
        if self.closed:
            raise ConnectionResetError("closed")
        self.sent += data
        self._more.set()

    async def receive(self) -> bytes:
        return await self.incoming.get()

    def close(self) -> None:
        self.closed = True

    def say(self, data: bytes) -> None:
        self.incoming.put_nowait(data)

    async def frame(self) -> tuple[int, int, bytes]:
        """The next frame that was sent."""
        while len(self.sent) < FRAME.size or len(self.sent) < self._size():
            self._more.clear()
            await self._more.wait()
        number, kind, size = FRAME.unpack_from(self.sent)
        data = bytes(self.sent[FRAME.size : FRAME.size + size])
        del self.sent[: FRAME.size + size]
        return number, kind, data

    def _size(self) -> int:
        return FRAME.size + int(FRAME.unpack_from(self.sent)[2])


def with_link(use: Callable[[Link, Peer], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        peer = Peer()
        peer.say(frame(0, PING))
        link = await Link.opened(peer, CONFIG)
        peer.sent.clear()
        try:
            return await use(link, peer)
        finally:
            link.close()

    return asyncio.run(run())


def test_answers_find_their_requests() -> None:
    async def use(link: Link, peer: Peer) -> None:
        one = asyncio.create_task(link.call({"n": 1}, b"body", room=100))
        first, kind, data = await peer.frame()
        two = asyncio.create_task(link.call({"n": 2}, room=100))
        second, _, _ = await peer.frame()
        head, body = SIZES.unpack(data[: SIZES.size])
        assert kind == DATA and data[SIZES.size :] == b'{"n": 1}body' and (head, body) == (8, 4)
        late, early = answer(first, {"is": 1}, b"x"), answer(second, {"is": 2})
        peer.say(frame(99, DATA, b"nobody asked"))
        # Any piece may come at any time.
        for byte in early + late:
            peer.say(bytes([byte]))
        assert (await two).head == {"is": 2}
        assert (await one).head == {"is": 1} and bytes((await one).body) == b"x"

    with_link(use)


def test_large_requests_go_in_pieces() -> None:
    async def use(link: Link, peer: Peer) -> None:
        body = bytes(range(256)) * 1024
        call = asyncio.create_task(link.call({}, body, room=100))
        whole = b""
        while len(whole) < SIZES.size + 2 + len(body):
            number, _, data = await peer.frame()
            assert len(data) <= CHUNK
            whole += data
        assert whole.endswith(body)
        peer.say(answer(number, {}))
        await call

    with_link(use)


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="end"),
        pytest.param(FRAME.pack(1, DATA, CHUNK + 1), id="frame too large"),
        pytest.param(frame(1, 77), id="unknown kind"),
        pytest.param(frame(1, DATA, b"x" * 101), id="answer too large"),
        pytest.param(frame(1, DATA, b"\0\0\0\x09not json!") + frame(1, END, OK), id="not json"),
    ],
)
def test_what_is_not_an_answer_ends_the_connection(sent: bytes) -> None:
    async def use(link: Link, peer: Peer) -> None:
        call = asyncio.create_task(link.call({}, room=100))
        assert (await peer.frame())[0] == 1
        peer.say(sent)
        with pytest.raises(LinkLost):
            await call
        assert link.lost and peer.closed
        with pytest.raises(LinkLost):
            await link.call({}, room=100)

    with_link(use)


def test_a_cancelled_call_waits_for_the_end_in_the_box() -> None:
    async def use(link: Link, peer: Peer) -> None:
        call = asyncio.create_task(link.call({}, room=100))
        number, _, _ = await peer.frame()
        call.cancel()
        assert await peer.frame() == (number, CANCEL, b"")
        # Another call comes and goes meanwhile: this one still waits.
        other = asyncio.create_task(link.call({}, room=100))
        peer.say(answer((await peer.frame())[0], {}))
        await other
        assert not call.done()
        peer.say(frame(number, END, OK))
        with pytest.raises(asyncio.CancelledError):
            await call
        assert not link.lost

    with_link(use)


def test_a_cancelled_call_that_does_not_end_cuts_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(link_module, "_CANCEL_S", 0.05)

    async def use(link: Link, peer: Peer) -> None:
        call = asyncio.create_task(link.call({}, room=100))
        await peer.frame()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert link.lost and peer.closed

    with_link(use)


def test_a_request_without_a_process_is_told() -> None:
    async def use(link: Link, peer: Peer) -> None:
        call = asyncio.create_task(link.call({}, room=100))
        number, _, _ = await peer.frame()
        peer.say(frame(number, END, NO_PROCESS.to_bytes(4, "big", signed=True)))
        with pytest.raises(Unfinished) as unfinished:
            await call
        assert unfinished.value.status == NO_PROCESS and not link.lost

    with_link(use)


# --- boxes ---------------------------------------------------------------------------------------


def with_box(use: Callable[[RemoteBox, Peer], Awaitable[Any]], fate: Fate) -> list[str]:
    """Calls of ``remove`` while ``use`` has a box whose keeper tells of that ``fate``."""
    removed: list[str] = []

    async def remove() -> None:
        removed.append("box")

    async def inquire() -> Fate:
        return fate

    async def run(link: Link, peer: Peer) -> None:
        box = RemoteBox("box", BoxSpec(), link, inquire=inquire, remove=remove)
        await use(box, peer)

    with_link(run)
    return removed


@pytest.mark.parametrize(
    ("sent", "fate", "kind", "by_agent"),
    [
        (frame(0, BYE), Fate(gone=True), BoxDied, False),
        (b"", Fate(gone=True), BoxDied, True),
        (b"", Fate(gone=True, by_us=True), BoxDied, False),
        (b"", Fate(gone=False), TransportError, None),
    ],
)
def test_whose_fault_the_end_of_a_box_is(
    sent: bytes, fate: Fate, kind: type[Exception], by_agent: bool | None
) -> None:
    async def use(box: RemoteBox, peer: Peer) -> None:
        running = asyncio.create_task(box.exec(["sleep", "9"]))
        await peer.frame()
        peer.say(sent)
        with pytest.raises(kind) as error:
            await running
        assert getattr(error.value, "by_agent", None) is by_agent
        assert not await box.alive()
        with pytest.raises((BoxDied, TransportError)):
            await box.read("f")

    assert with_box(use, fate) == ["box"]


def test_a_box_that_ends_idle_is_not_the_agents_doing() -> None:
    async def use(box: RemoteBox, peer: Peer) -> None:
        peer.say(b"")
        with pytest.raises(BoxDied) as died:
            await box.read("f")
        assert not died.value.by_agent

    assert with_box(use, Fate(gone=True)) == ["box"]


def test_no_answer_means_that_the_box_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("palestra.sandbox.remote._GRACE_S", 0.05)
    monkeypatch.setattr(link_module, "_CANCEL_S", 0.05)

    async def use(box: RemoteBox, peer: Peer) -> None:
        with pytest.raises(TransportError, match="whether a command ran is unknown"):
            await box.exec(["true"], timeout=0.05)
        assert not await box.alive()

    assert with_box(use, Fate(gone=False)) == ["box"]


def test_what_a_box_without_processes_says() -> None:
    async def use(box: RemoteBox, peer: Peer) -> None:
        status = NO_PROCESS.to_bytes(4, "big", signed=True)
        running = asyncio.create_task(box.exec(["true"]))
        peer.say(frame((await peer.frame())[0], END, status))
        ended = await running
        assert ended.exit_code == 126 and b"no process left" in ended.stderr
        reading = asyncio.create_task(box.read("f"))
        peer.say(frame((await peer.frame())[0], END, status))
        with pytest.raises(PathRefused):
            await reading

    assert with_box(use, Fate(gone=False)) == []


def test_a_websocket_is_spoken_over_before_it_is_idle_and_given_up_when_nobody_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kubernetes_stream, "_BEAT_S", 0.0)
    monkeypatch.setattr(kubernetes_stream, "_SILENCE_S", 0.05)

    async def run() -> int:
        asked, over = [0], asyncio.Event()

        async def ask() -> None:
            asked[0] += 1
            await asyncio.sleep(60 * (asked[0] // 3))

        kubernetes_stream.Stream(None).keep(ask, over.set)  # type: ignore[arg-type]
        async with asyncio.timeout(30):
            await over.wait()
        return asked[0]

    assert asyncio.run(run()) == 3


def test_bytes_that_changed_on_their_way_are_our_fault() -> None:
    async def use(box: RemoteBox, peer: Peer) -> None:
        writing = asyncio.create_task(box.write("f", b"data"))
        peer.say(answer((await peer.frame())[0], {"damaged": True}))
        with pytest.raises(TransportError):
            await writing

    assert with_box(use, Fate(gone=False)) == []


# --- what travels --------------------------------------------------------------------------------


def test_what_travels_runs_alone_and_on_older_pythons() -> None:
    modules = packed(*link_module._MODULES)
    ours = {name for name, _, _ in modules}
    for name, _, text in modules:
        tree = ast.parse(text, feature_version=(3, 9))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                assert node.module in ours or node.module in sys.stdlib_module_names | {
                    "collections.abc",
                    "__future__",
                }, f"{name} imports {node.module}"


def test_a_python_that_is_too_old_says_so() -> None:
    code = f"import sys\nsys.version_info = (3, 8, 10)\nexec({BOOT!r})"
    ended = subprocess.run(
        [sys.executable, "-c", code, "60"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1 and ended.stderr == b"python3 is older than 3.9\n"
