"""Fixtures of the sandbox tests: each provider that grading may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from palestra.rl.errors import SandboxError
from palestra.rl.types import SandboxProvider
from palestra.sandbox.bubblewrap import Bubblewrap
from palestra.sandbox.landlock import Landlock


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
