"""The application: routes, static files, and what every answer has in common."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field

from palestra import __version__
from palestra.deploy.dashboard import api_episodes, api_runs, events
from palestra.deploy.dashboard.prometheus import exposition
from palestra.deploy.dashboard.query import BadFilter
from palestra.deploy.dashboard.runs import Runs, UnknownRun
from palestra.deploy.dashboard.security import COOKIE, SESSION_S, Access, Guard
from palestra.deploy.dashboard.sources import Sources
from palestra.deploy.dashboard.tail import Tail
from palestra.rl.errors import UserError

ABOUT = "What palestra's dashboard shows, as JSON. Nothing of a run can be changed here."


class Login(BaseModel):
    """The token that the server was started with."""

    token: Annotated[str, Field(max_length=1_000)]


class Session(BaseModel):
    """Is this browser let in, and is a token needed at all?"""

    open: bool
    needs_token: bool


def create_app(runs: Runs, cache: Path, access: Access) -> FastAPI:
    """The dashboard of some runs; indexes are kept in the folder ``cache``.

    Example: ``create_app(Runs(Path("runs")), Path("/tmp/cache"), Access())``
    """
    tail = Tail(runs, cache)
    sources = Sources(runs=runs, tail=tail)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with tail:
            yield

    app = FastAPI(
        title="Palestra dashboard",
        version=__version__,
        description=ABOUT,
        docs_url=None,  # its page loads scripts from elsewhere; ours is #/api
        redoc_url=None,
        openapi_url="/api/openapi.json",
        lifespan=lifespan,
    )
    app.add_middleware(Guard, access=access)
    app.include_router(api_runs.routes(sources))
    app.include_router(api_episodes.routes(sources))
    _add_session(app, access)
    _add_errors(app)

    @app.get("/api/events", response_class=EventSourceResponse, tags=["live"])
    async def get_events() -> AsyncIterator[ServerSentEvent]:
        """An event `run` with the name of each run that changed; `runs` when the list did."""
        async for event in events.changes(sources.fingerprints):
            yield event

    @app.get("/metrics", response_class=PlainTextResponse, tags=["live"])
    def get_prometheus() -> Response:
        """The last metrics of every run for Prometheus."""
        return Response(exposition(runs, sources.steps), media_type=CONTENT_TYPE_LATEST)

    static = Path(str(files("palestra.deploy.dashboard") / "static"))

    @app.get("/", include_in_schema=False)
    def get_shell() -> FileResponse:
        return FileResponse(static / "index.html", media_type="text/html; charset=utf-8")

    app.mount("/static", StaticFiles(directory=static), name="static")
    return app


def _add_session(app: FastAPI, access: Access) -> None:
    @app.get("/api/session", tags=["session"])
    def get_session(request: Request) -> Session:
        """Whether a token is needed, and whether this browser has given it."""
        return Session(open=access.allows(request), needs_token=bool(access.token))

    @app.post(
        "/api/session",
        tags=["session"],
        responses={401: {"description": "Another token is needed"}},
    )
    def begin_session(login: Login, response: Response) -> Session:
        """Give the token; the browser gets a cookie for 12 hours."""
        if access.token and not access.is_token(login.token):
            raise _Refused
        if access.token:
            response.set_cookie(
                COOKIE,
                access.begin(),
                max_age=SESSION_S,
                httponly=True,
                samesite="strict",
                secure=access.secure,
            )
        return Session(open=True, needs_token=bool(access.token))

    @app.delete("/api/session", tags=["session"])
    def end_session(request: Request, response: Response) -> Session:
        """Log out."""
        access.end(request)
        response.delete_cookie(COOKIE, httponly=True, samesite="strict", secure=access.secure)
        return Session(open=not access.token, needs_token=bool(access.token))


class _Refused(Exception):
    """The token was wrong."""


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(UnknownRun)
    async def unknown(request: Request, error: UnknownRun) -> JSONResponse:
        return JSONResponse({"detail": "no such run"}, status_code=404)

    @app.exception_handler(UserError)
    async def unreadable(request: Request, error: UserError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, status_code=409, headers={"Retry-After": "5"})

    @app.exception_handler(BadFilter)
    async def bad(request: Request, error: BadFilter) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, status_code=400)

    @app.exception_handler(_Refused)
    async def refused(request: Request, error: _Refused) -> JSONResponse:
        return JSONResponse({"detail": "this is not the token"}, status_code=401)
