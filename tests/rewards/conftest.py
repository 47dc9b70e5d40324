"""A module of rewards as others may write them."""

from __future__ import annotations

from pathlib import Path

import pytest

OTHERS = Path(__file__).with_name("rewards_of_others.py")


@pytest.fixture
def others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module of rewards in the current folder."""
    name = "rewards_of_others"
    (tmp_path / f"{name}.py").write_text(OTHERS.read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name
