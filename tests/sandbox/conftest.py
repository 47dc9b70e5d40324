"""Fixtures of the sandbox tests: each provider that grading may use."""

from __future__ import annotations

import asyncio
import inspect
import os
from pathlib import Path

import pytest

from palestra.rl.errors import SandboxError
from palestra.rl.types import SandboxProvider
from palestra.sandbox.bubblewrap import Bubblewrap
from palestra.sandbox.landlock import Landlock


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
    try:
        found: SandboxProvider = request.param(root=tmp_path)
    except SandboxError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))
    return found
