"""Starts the server: who may reach it, on which port, and what is said about it."""

from __future__ import annotations

import ipaddress
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from palestra.deploy.console import Console
from palestra.deploy.dashboard.runs import Runs
from palestra.deploy.dashboard.security import MIN_TOKEN, Access
from palestra.rl.errors import UserError

TOKEN_VARIABLE = "PALESTRA_DASHBOARD_TOKEN"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """Where to listen. ``port`` 0 takes any that is free; ``proxied`` says that a proxy in front
    speaks TLS.

    Example: ``ServeOptions(host="127.0.0.1", port=8765)``
    """

    host: str = "127.0.0.1"
    port: int = 8765
    cache: Path | None = None
    token_file: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    proxied: bool = False


def serve(folder: Path, options: ServeOptions, console: Console) -> int:
    """Serve until interrupted; raises ``UserError`` before that when it cannot be."""
    runs = Runs(folder)
    access = _access(options)
    cache = _cache(options.cache)
    listener = _listen(options)
    with listener:
        import uvicorn

        from palestra.deploy.dashboard.app import create_app

        scheme = "https" if options.certificate else "http"
        name = f"[{options.host}]" if ":" in options.host else options.host
        count = len(runs.names())
        console.say(
            f"{count} {'run' if count == 1 else 'runs'} of {folder} at"
            f" {scheme}://{name}:{listener.getsockname()[1]}/ (Ctrl-C ends it)"
        )
        config = uvicorn.Config(
            create_app(runs, cache, access),
            log_level="warning",
            ssl_certfile=options.certificate,
            ssl_keyfile=options.key,
            timeout_graceful_shutdown=1,  # streams of events never end by themselves
            server_header=False,
        )
        uvicorn.Server(config).run(sockets=[listener])
    return 0


def _access(options: ServeOptions) -> Access:
    token = _token(options)
    if bool(options.certificate) != bool(options.key):
        raise UserError("--tls-cert and --tls-key belong together; give both")
    for path in (options.certificate, options.key):
        if path and not path.is_file():
            raise UserError(f"{path}: there is no such file")
    secure = bool(options.certificate) or options.proxied
    if not _is_loopback(options.host) or options.proxied:
        if not token:
            raise UserError(
                f"--host {options.host}: others can reach this, so a token is needed; set"
                f" {TOKEN_VARIABLE} or give --token-file"
            )
        if not secure:
            raise UserError(
                f"--host {options.host}: the token would travel unprotected; give --tls-cert and"
                " --tls-key, or --behind-proxy when a proxy speaks TLS"
            )
    return Access(token=token, secure=secure)


def _token(options: ServeOptions) -> str:
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if options.token_file:
        try:
            token = options.token_file.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise UserError(f"--token-file {options.token_file}: cannot be read") from error
    if (options.token_file or token) and (len(token) < MIN_TOKEN or not token.isascii()):
        raise UserError(f"the token needs {MIN_TOKEN} or more plain characters")
    return token


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _cache(given: Path | None) -> Path:
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = given or home / "palestra" / "dashboard"
    try:
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise UserError(f"{cache}: {error.strerror}; choose another folder: --cache DIR") from error
    if not os.access(cache, os.W_OK):
        raise UserError(f"{cache}: cannot be written to; choose another folder: --cache DIR")
    return cache


def _listen(options: ServeOptions) -> socket.socket:
    try:
        found = socket.getaddrinfo(options.host, options.port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise UserError(f"--host {options.host}: there is no such address") from error
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise UserError(
            f"--port {options.port}: {error.strerror} on {options.host}; choose another --port"
        ) from error
    return listener
