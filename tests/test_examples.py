"""Examples do what they say, at their smallest size."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from palestra.deploy.cli import main
from palestra.deploy.config_file import load_recipe

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
FULL = os.environ.get("PALESTRA_TESTS") == "full"
IMAGE = os.environ.get("PALESTRA_TEST_IMAGE", "agentbase:bookworm")
SAYS = {"any_sandbox.py": "the network: refused"}
METADATA = """
import sys
from setuptools.build_meta import prepare_metadata_for_build_wheel
prepare_metadata_for_build_wheel(sys.argv[1])
"""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALESTRA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def python(*arguments: str, folder: Path | None = None, seconds: float = 300) -> str:
    """What a program printed that has to succeed."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=seconds
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("**/*.py")), ids=lambda p: p.name)
def test_an_example_is_short(example: Path) -> None:
    assert len(example.read_text().splitlines()) <= 60


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda p: p.name)
def test_an_example_runs(example: Path) -> None:
    said = python(str(example))
    assert SAYS.get(example.name, "reward 1.0") in said and "REACHED" not in said


def test_a_box_may_be_a_container() -> None:
    if not os.environ.get("DOCKER_HOST"):
        required = "docker" in os.environ.get("PALESTRA_REQUIRE", "").split(",")
        (pytest.fail if required else pytest.skip)("DOCKER_HOST is not set")
    said = python(str(EXAMPLES / "any_sandbox.py"), "docker", IMAGE)
    assert said.startswith("docker: ") and said.count("refused") == 3 and "REACHED" not in said


def test_tasks_of_ones_own_are_sound(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks", "check", f"jsonl:{EXAMPLES / 'tasks.jsonl'}"]) == 0, capsys


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package of ``examples/times`` is found, with its entry point, as after pip install."""
    package = tmp_path / "package"
    package.mkdir()
    for name in ("pyproject.toml", "palestra_times.py"):
        (package / name).write_text((EXAMPLES / "times" / name).read_text())
    python("-c", METADATA, str(package), folder=package)
    monkeypatch.setenv("PYTHONPATH", f"{package}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")


@pytest.mark.usefixtures("installed")
def test_an_environment_of_ones_own_has_sound_tasks() -> None:
    recipe = load_recipe(EXAMPLES / "times" / "times.toml").config
    said = python("-m", "palestra.deploy.cli", "tasks", "check", recipe.tasks.source)
    assert "10 references pass, 0 pass untouched" in said


@pytest.mark.usefixtures("installed")
def test_a_policy_is_trained_in_an_environment_of_ones_own(tmp_path: Path) -> None:
    """One step of it, and whether it learns anything with ``PALESTRA_TESTS=full``."""
    words = ["train", str(EXAMPLES / "times" / "times.toml"), "--run", str(tmp_path / "run")]
    smallest = ["--set", "policy.sft.steps=4", "--set", "rl.steps=1"]
    python("-m", "palestra.deploy.cli", *words, *([] if FULL else smallest), seconds=900)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "done"
    assert summary["steps"] == (15 if FULL else 1)
    assert not FULL or summary["reward"]["last5"] > summary["reward"]["first5"]
