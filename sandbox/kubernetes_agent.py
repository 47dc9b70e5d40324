"""The agent of a box: HTTP for the driver on one side, the supervisor (``inbox``) on the other.

The text of this file is the program of a container of its own in the Pod of a box, in any image
with a ``python3`` 3.9 or newer: standard library only. What runs in the box is another user in
another container: it sees neither this process nor its memory, files and environment.

``POST /in?at=N`` passes its body on to the supervisor, ``GET /out?at=N`` waits for what the
supervisor says and returns it, ``DELETE /`` says good-bye. ``N`` counts bytes since the beginning,
so a request that is sent again does nothing twice, and a connection that breaks loses nothing. The
bytes are the frames of ``inbox``; none is interpreted here. Every request bears a token of which
only the digest is known here: there is nothing to steal.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import select
import signal
import socket
import socketserver
import struct
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

TOKEN, ENDED = "X-Palestra-Token", "X-Palestra-Ended"
LATER, HEARD = "-", b"heard\n"
"""Instead of a digest: it comes as the first line of standard input, and this is the answer."""
PART = 1 << 20
"""The most bytes that one request or answer carries."""
WAIT_S = 20.0
"""How long an answer may keep its asker waiting."""
AWAY_S, SILENCE_S = 15.0, 90.0
"""A driver without a connection for so long, or without a request, is gone."""

_KEPT = 4 << 20
_STRANGERS = 32
_STRANGER_S = 10.0
_TURN_S = 0.5


class Session:
    """What goes between one driver and the supervisor at the other end of ``peer``."""

    def __init__(self, peer: socket.socket) -> None:
        self._peer = peer
        self._kept = bytearray()
        self._at = self._passed = 0
        self._ended = False
        self._changed = threading.Condition()
        self._passing = threading.Lock()
        self._present = 0
        self._heard = self._left = float("inf")

    def collect(self) -> None:
        """Keep what the supervisor says until the driver has it; returns when it is silent."""
        while not self._ended:
            try:
                data = self._peer.recv(1 << 16)
            except OSError:
                data = b""
            with self._changed:
                self._kept += data
                self._ended = self._ended or not data
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._ended or len(self._kept) < _KEPT)

    def end(self, *_: object) -> None:
        """Cut the connection to the supervisor, which ends what it runs."""
        with suppress(OSError):
            self._peer.shutdown(socket.SHUT_RDWR)
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def passed(self, at: int, data: bytes) -> bool:
        """Pass on the part of ``data`` that is new; False if bytes before ``at`` are missing."""
        with self._passing:
            if at > self._passed:
                return False
            rest = memoryview(data)[self._passed - at :]
            while rest:
                size = self._peer.send(rest)
                self._passed += size
                rest = rest[size:]
            return True

    def said(self, at: int, turn_s: float) -> tuple[bytes, bool] | None:
        """Bytes from ``at`` on and whether they are the last; those before are forgotten. None
        if there are none within ``turn_s`` seconds. Raises ``ValueError`` for a wrong ``at``."""
        with self._changed:
            if not self._at <= at <= self._at + len(self._kept):
                raise ValueError(at)
            del self._kept[: at - self._at]
            self._at = at
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._kept or self._ended, turn_s)
            data = bytes(self._kept[:PART])
            last = self._ended and len(data) == len(self._kept)
            return (data, last) if data or last else None

    def here(self, change: int) -> None:
        """A connection of the driver was made (1) or lost (-1), or is used (0)."""
        with self._changed:
            self._present += change
            self._heard = self._left = time.monotonic()

    def deserted(self) -> bool:
        """Whether the driver came and is gone."""
        with self._changed:
            now = time.monotonic()
            away = not self._present and now - self._left > AWAY_S
            return away or now - self._heard > SILENCE_S


class Server(ThreadingHTTPServer):
    """A thread per connection; of strangers, who have not shown a token yet, the oldest goes when
    there are many, so that they keep nobody out."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: str, port: int, session: Session, digest: str) -> None:
        self.session = session
        self.digest = digest
        self._strangers: dict[socket.socket, None] = {}
        self._known: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        super().__init__((address, port), Handler)

    def server_bind(self) -> None:
        """As every server, without asking for the name of this host, which may take long."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "agent", self.server_address[1]

    def process_request(self, request, client_address) -> None:  # type: ignore[no-untyped-def]
        """Serve a connection in a thread of its own."""
        with self._lock:
            self._strangers[request] = None
            if len(self._strangers) > _STRANGERS:
                oldest = next(iter(self._strangers))
                del self._strangers[oldest]
                with suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)
        super().process_request(request, client_address)

    def shutdown_request(self, request) -> None:  # type: ignore[no-untyped-def]
        """The end of a connection."""
        with self._lock:
            self._strangers.pop(request, None)
            known = request in self._known
            self._known.discard(request)
        if known:
            self.session.here(-1)
        super().shutdown_request(request)

    def admits(self, token: str, request: socket.socket) -> bool:
        """Whether that is the driver's token; its connection is no stranger's any more."""
        found = hashlib.sha256(token.encode("latin-1", "replace")).hexdigest()
        if not hmac.compare_digest(found, self.digest):
            return False
        with self._lock:
            self._strangers.pop(request, None)
            fresh = request not in self._known
            self._known.add(request)
        self.session.here(1 if fresh else 0)
        return True

    def handle_error(self, request, client_address) -> None:  # type: ignore[no-untyped-def]
        """A connection that breaks is nothing to write about."""


class Handler(BaseHTTPRequestHandler):
    """The requests of one connection."""

    protocol_version = "HTTP/1.1"
    timeout = _STRANGER_S
    disable_nagle_algorithm = True
    wbufsize = -1
    server: Server

    def parse_request(self) -> bool:
        """Nobody without the token gets further than this."""
        if not super().parse_request():
            return False
        if not self.server.admits(self.headers.get(TOKEN, ""), self.connection):
            self.close_connection = True
            self._answer(403)
            return False
        self.connection.settimeout(SILENCE_S)
        return True

    def do_GET(self) -> None:
        """What the supervisor says."""
        until = time.monotonic() + WAIT_S
        try:
            found = None
            while found is None and time.monotonic() < until and self._connected():
                found = self.server.session.said(self._at(), _TURN_S)
        except ValueError:
            return self._answer(409)
        data, last = found or (b"", False)
        return self._answer(200, data, last=last)

    def do_POST(self) -> None:
        """What the driver says."""
        size = int(self.headers.get("Content-Length", "-1"))
        if not 0 <= size <= PART:
            self.close_connection = True
            return self._answer(413)
        data = self.rfile.read(size)
        if len(data) < size:
            raise ConnectionError("it broke")
        try:
            passed = self.server.session.passed(self._at(), data)
        except OSError:
            return self._answer(410)
        return self._answer(204 if passed else 409)

    def do_DELETE(self) -> None:
        """The driver needs the box no more."""
        self.server.session.end()
        self._answer(204)

    def _at(self) -> int:
        return int(parse_qs(urlsplit(self.path).query).get("at", ["0"])[0])

    def _connected(self) -> bool:
        """Whether the asker still waits; it has nothing to say until it is answered."""
        # Not with MSG_DONTWAIT alone: a socket with a timeout waits for it all the same.
        readable, _, _ = select.select([self.connection], [], [], 0)
        return not readable or self.connection.recv(1, socket.MSG_PEEK) != b""

    def _answer(self, status: int, data: bytes = b"", *, last: bool = False) -> None:
        self.send_response_only(status)
        if status != 204:
            self.send_header("Content-Length", str(len(data)))
        if last:
            self.send_header(ENDED, "1")
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        """No log: nobody reads it, and strangers could fill it."""


def supervisor(path: str, user: int) -> socket.socket:
    """The connection of the supervisor, which is the first and only one: it runs before anything
    else in the box does. ``user`` is whom it must come from."""
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(path)
        os.chmod(path, 0o660)  # noqa: PTH101
        door.listen(1)
        while True:
            peer, _ = door.accept()
            facts = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            if struct.unpack("3i", facts)[1] == user:
                break
            peer.close()
    os.unlink(path)  # noqa: PTH108
    return peer


def main(seconds: str, address: str, port: str, path: str, user: str, digest: str) -> None:
    """Serve one driver until it, the supervisor or the time to live ends. A box that is kept warm
    waits for its driver (``LATER``), whom the API server lets in to say who it is."""
    # The first process of a container gets no signal that it does not handle.
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
    signal.alarm(int(seconds))
    session = Session(supervisor(path, int(user)))
    if digest == LATER:
        digest = sys.stdin.readline().strip()
        os.write(1, HEARD)
    signal.signal(signal.SIGTERM, session.end)
    server = Server(address, int(port), session, digest)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    threading.Thread(target=session.collect, daemon=True).start()
    while not session.deserted():
        time.sleep(_TURN_S)
    session.end()


if __name__ == "__main__":
    main(*sys.argv[1:])
