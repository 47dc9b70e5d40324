"""Who may ask, and what a browser may do with the answers."""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "palestra_session"
SESSION_S = 12 * 3600
MIN_TOKEN = 16

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "font-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "object-src 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
OPEN = ("/", "/api/session")
"""Paths that need no token, besides ``/static/``: a page without data, and where to log in."""
LOCAL = frozenset({"localhost", "127.0.0.1", "[::1]"})


@dataclass(slots=True, kw_only=True)
class Access:
    """Who may ask. Without a token everybody who reaches the server under a local name: a page of
    somewhere else must not read from it through a name of its own (DNS rebinding).

    ``secure`` says that browsers reach the server through TLS.

    Example: ``Access(token="...", secure=True).allows(connection)``
    """

    token: str = ""
    secure: bool = False
    _sessions: dict[str, float] = field(default_factory=dict)

    def is_token(self, given: str) -> bool:
        """Compares in a time that does not depend on where texts differ."""
        return bool(self.token) and hmac.compare_digest(given.encode(), self.token.encode())

    def allows(self, connection: HTTPConnection) -> bool:
        """May this request have data?"""
        if not self.token:
            return True
        kind, _, given = connection.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self.is_token(given.strip()):
            return True
        return self._sessions.get(connection.cookies.get(COOKIE, ""), 0.0) > time.monotonic()

    def begin(self) -> str:
        """A new session; sessions that are over are forgotten."""
        now = time.monotonic()
        self._sessions = {name: end for name, end in self._sessions.items() if end > now}
        name = secrets.token_urlsafe(32)
        self._sessions[name] = now + SESSION_S
        return name

    def end(self, request: Request) -> None:
        """Forget the session of a request."""
        self._sessions.pop(request.cookies.get(COOKIE, ""), None)


class Guard:
    """Middleware: refuses what ``Access`` does not allow, and puts headers on every answer."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope)
        if refusal:
            await refusal(scope, receive, send_with_headers)
        else:
            await self._app(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        if not self._access.token and _host(Headers(scope=scope)) not in LOCAL:
            detail = "ask for localhost; another name needs a token"
            return JSONResponse({"detail": detail}, status_code=421)
        path = scope["path"]
        if (
            path in OPEN
            or path.startswith("/static/")
            or self._access.allows(HTTPConnection(scope))
        ):
            return None
        return JSONResponse(
            {"detail": "a token is needed"}, status_code=401, headers={"WWW-Authenticate": "Bearer"}
        )


def is_open(path: str) -> bool:
    """Does this path hold nothing of any run?"""
    return path in OPEN or path.startswith("/static/")


def _host(headers: Headers) -> str:
    """The name in the header ``Host``, without its port."""
    name, colon, port = headers.get("host", "").rpartition(":")
    return (name if colon and port.isdigit() else headers.get("host", "")).lower()
