"""Environments of the package verifiers, played with a stand-in for it.

It has the interface of the package, whose pins are not ours; ``bench/adapters.py`` plays the same
episodes (``episodes.py``) with the package itself, in environments of their own.
"""

from __future__ import annotations

import importlib.util
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from palestra.deploy.cli import main
from palestra.envs.adapters.verifiers import verifiers
from palestra.rl.errors import UserError

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def episodes() -> ModuleType:
    spec = importlib.util.spec_from_file_location("episodes", HERE / "episodes.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def nothing_stays(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test imports from its own folders is gone after it."""
    before = set(sys.modules)
    verifiers.cache_clear()
    yield
    verifiers.cache_clear()
    for name in set(sys.modules) - before:
        path = getattr(sys.modules[name], "__file__", None) or ""
        if path.startswith(str(HERE)):
            del sys.modules[name]


@pytest.fixture
def standin(monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("standin", "theirs"):
        monkeypatch.syspath_prepend(HERE / folder)


@pytest.mark.usefixtures("standin")
def test_environments_of_the_classic_interface(episodes: ModuleType) -> None:
    before = signal.getsignal(signal.SIGTERM)
    episodes.classic()
    assert signal.getsignal(signal.SIGTERM) is before  # they take it for themselves


@pytest.mark.usefixtures("standin")
def test_tasksets_of_the_second_interface(episodes: ModuleType) -> None:
    episodes.tasksets()


@pytest.mark.usefixtures("standin")
def test_they_are_a_source_like_any_other(capsys: pytest.CaptureFixture[str]) -> None:
    """There is nothing to grade without playing: the tasks are sound, but unproven."""
    assert main(["tasks", "check", "verifiers:words_v0", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["tasks"], found["no_reference"], found["invalid"]) == (4, 4, [])


def test_without_the_package_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "verifiers", None)
    with pytest.raises(UserError, match="run: pip install verifiers"):
        verifiers("gsm8k")
    with pytest.raises(UserError, match="needs a name"):
        verifiers("")
