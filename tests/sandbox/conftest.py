"""Fixtures of the sandbox tests: each provider that grading may use."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from palestra.rl.errors import SandboxError
from palestra.rl.types import SandboxProvider
from palestra.sandbox import auto
from palestra.sandbox.bubblewrap import Bubblewrap
from palestra.sandbox.checks import Fresh, Runner
from palestra.sandbox.landlock import Landlock
from palestra.sandbox.warm import problem_of, warm

_DOCKER = bool(os.environ.get("DOCKER_HOST"))


def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine in an event loop of its own."""
    case = pyfuncitem.obj
    if not inspect.iscoroutinefunction(case):
        return None
    given = {name: pyfuncitem.funcargs[name] for name in inspect.signature(case).parameters}
    asyncio.run(case(**given))
    return True


@pytest.fixture(params=[Bubblewrap, Landlock], ids=["bubblewrap", "landlock"])
def provider(request: pytest.FixtureRequest, tmp_path: Path) -> SandboxProvider:
    """Boxes below a folder of this test; skips where the machine lacks the mechanism."""
    return _made(request.param, tmp_path)


@pytest.fixture(params=["bubblewrap", "landlock", *(["docker"] if _DOCKER else [])])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> SandboxProvider:
    """As ``provider``, and Docker where there is one."""
    if request.param == "docker":
        image = os.environ.get("PALESTRA_TEST_IMAGE", "agentbase:bookworm")
        return auto.make("docker", image=image)
    return _made(Bubblewrap if request.param == "bubblewrap" else Landlock, tmp_path)


@pytest.fixture(scope="session", params=["fresh", "warm", "landlock"])
def runner(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """What runs checks: a fresh box per run, or warm ones that serve the whole session."""
    kind = Landlock if request.param == "landlock" else Bubblewrap
    provider = _made(kind, tmp_path_factory.mktemp("boxes"))
    if request.param != "warm":
        return Fresh(provider)
    found = warm(provider)
    return found or _lacking(problem_of(provider))


def _made(kind: Callable[..., SandboxProvider], root: Path) -> SandboxProvider:
    try:
        return kind(root=root)
    except SandboxError as error:
        _lacking(str(error))


def _lacking(problem: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(problem)
    pytest.skip(problem)
