"""``palestra new``: what it writes works as it is, and wrong names are refused in one line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from palestra.deploy.cli import main
from palestra.deploy.commands.new import TEMPLATES

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "environments.md"
METADATA = """
import sys
from setuptools.build_meta import prepare_metadata_for_build_wheel
prepare_metadata_for_build_wheel(sys.argv[1])
"""
STYLE = ("--isolated", "--quiet")


@pytest.fixture(autouse=True)
def _in_a_new_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALESTRA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def python(folder: Path, *arguments: str) -> str:
    """Run Python in a package that is found, with its entry points, as if it were installed."""
    paths = (str(folder), str(folder.parent / "metadata"), os.environ.get("PYTHONPATH", ""))
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("words", "folder", "listed"),
    [
        (
            ("env", "acme/TwoSums-v0"),
            "palestra-two-sums",
            "acme/TwoSums-v0 palestra-two-sums 0.1.0",
        ),
        (("reward", "few_turns"), "palestra-few-turns", "few_turns palestra-few-turns 0.1.0"),
    ],
)
def test_a_new_package_passes_its_tests_and_its_readme_works(
    words: tuple[str, str],
    folder: str,
    listed: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["new", *words]) == 0
    package = tmp_path / folder
    python(package, "-m", "ruff", "check", *STYLE, "--select", "E,F,I,B,UP", ".")
    python(package, "-m", "ruff", "format", *STYLE, "--check", ".")
    assert re.search(r"\d passed", python(package, "-m", "pytest", "-q"))

    (tmp_path / "metadata").mkdir()
    python(package, "-c", METADATA, str(tmp_path / "metadata"))
    [fence] = blocks(package / "README.md", "sh")
    install, *commands = fence.splitlines()
    assert install == "pip install -e ." and len(commands) == 2
    shown = [
        python(package, "-m", "palestra.deploy.cli", *command.split()[1:])
        for command in commands
        if command.startswith("palestra ")
    ]
    assert listed in " ".join(shown[0].split())
    assert words[0] == "reward" or "10 references pass, 0 pass untouched" in shown[1]

    monkeypatch.syspath_prepend(tmp_path / "metadata")
    assert main(["new", *words, "--dir", "again"]) == 2
    assert f"{words[1]} is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["env", "Times"], "'Times' names no environment; write it like acme/Times-v0"),
        (["env", "acme/Times"], "names no environment"),
        (["env", "acme/../Times-v0"], "names no environment"),
        (["env", 'acme/Times"-v0'], "names no environment"),
        (["env", "acme/Times-v0\n"], "names no environment"),
        (["env", "palestra/Math-v0"], "the environment palestra/Math-v0 is there already"),
        (["reward", "Few-Turns"], "'Few-Turns' names no reward; write it like few_turns"),
        (["reward", "yield"], "'yield' names no reward"),
        (["reward", "float"], "'float' names no reward"),
        (["reward", "a" * 300], "File name too long"),
        (["reward", "tests_pass"], "the reward tests_pass is there already"),
        (["reward", "few_turns", "--dir", "here"], "here: File exists; choose a new folder"),
        (["reward", "few_turns", "--dir", "no/where"], "no/where: No such file or directory"),
        (["env"], "required: NAME"),
    ],
)
def test_wrong_use_is_one_line_and_writes_nothing(
    words: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "here").mkdir()
    assert main(["new", *words]) == 2
    found = capsys.readouterr()
    assert says in found.err and found.err.count("\n") == 1 and found.out == ""
    assert [path.name for path in tmp_path.rglob("*")] == ["here"]


def test_what_is_shown_to_authors_is_short_and_is_what_is_written(tmp_path: Path) -> None:
    assert main(["new", "env", "acme/Times-v0", "--dir", "times"]) == 0
    assert main(["new", "reward", "few_turns", "--dir", "few"]) == 0
    env = (tmp_path / "times" / "palestra_times.py").read_text()
    assert len(env.splitlines()) <= 35
    assert len((tmp_path / "few" / "palestra_few_turns.py").read_text().splitlines()) <= 10
    multi_turn, single_turn = (
        next(block for block in blocks(PAGE, "python run") if f"class {name}(" in block)
        for name in ("TimesEnv", "SquaresEnv")
    )
    assert multi_turn == env
    assert len(single_turn.splitlines()) <= 20


def blocks(page: Path, info: str) -> list[str]:
    """The code blocks of a page with this info string."""
    return re.findall(rf"```{info}\n(.*?)```", page.read_text(), re.DOTALL)


def test_templates_are_in_the_wheel() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = setuptools["package-data"]["*"]
    names = [path.name for path in TEMPLATES.rglob("*") if path.is_file()]
    assert len(names) == 8
    assert [n for n in names if not any(fnmatch(n, pattern) for pattern in patterns)] == []
