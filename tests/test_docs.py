"""Documents are true: snippets run, links resolve, commands parse, pages are up to date."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import pytest

from palestra.deploy.cli import COMMANDS, LATER, build_parser, main
from palestra.deploy.config import RunConfig
from palestra.deploy.config_file import load_recipe

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/**/*.md")])
FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
INLINE = re.compile(r"`(palestra [^`]+)`")
RUN = "python run"

MADE = {"runs", "build", "dist", ".hypothesis"}
# In pieces, so that this file may be searched as well.
FORBIDDEN = (
    *("pypi" + ".org", "python" + "hosted.org", "download." + "pytorch.org", "ana" + "conda.org"),
    *("/ro" + "ot/", "/wo" + "rk/", "/ho" + "me/"),
)
# What a box must not read, and where the images of a data set hide their tests.
OF_EVERY_MACHINE = re.compile(b"/ro" + rb"ot/(\.bashrc|\{FOLDER\})")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def fences(page: Path, info: str) -> list[str]:
    """The code blocks of a page with exactly this info string."""
    return [m["body"] for m in FENCE.finditer(page.read_text()) if m["info"].strip() == info]


def commands(page: Path) -> Iterator[list[str]]:
    """The words after ``palestra`` of every command that a page shows."""
    text = page.read_text()
    shown = INLINE.findall(text)
    for block in fences(page, "sh"):
        lines = block.replace("\\\n", " ").splitlines()
        shown += [line for line in lines if "palestra " in line]
    for line in shown:
        words = shlex.split(line, comments=True)
        if words and Path(words[0]).name == "palestra":
            yield words[1:]


def anchors(page: Path) -> set[str]:
    """What headings of a page are called in links."""
    text = FENCE.sub("", page.read_text())
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", [p for p in PAGES if fences(p, RUN)], ids=name_of)
def test_snippets_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of a page in one process, one after the other, as a reader would type them."""
    monkeypatch.setenv("PALESTRA_CACHE", str(tmp_path))
    program = tmp_path / "page.py"
    program.write_text("\n\n".join(fences(page, RUN)))
    command = [sys.executable, str(program)]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_python_snippet_is_left_out(page: Path) -> None:
    assert [body for body in fences(page, "python") if body] == []


def test_a_reward_takes_ten_lines_and_an_environment_thirty() -> None:
    reward, env, *_ = fences(README, RUN)
    assert len(reward.splitlines()) <= 10 and len(env.splitlines()) <= 30
    compile(env, "README", "exec")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_resolve(page: Path) -> None:
    broken = []
    for target in LINK.findall(FENCE.sub("", page.read_text())):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_parse(page: Path) -> None:
    parser = build_parser()
    for words in commands(page):
        if len(words) == 1:  # a mention, such as `palestra show`
            assert words[0] in (*COMMANDS, *LATER), words
            continue
        assert words[0] in COMMANDS, f"{words} is not in this version"
        assert isinstance(parser.parse_args(words), Namespace)


@pytest.mark.parametrize("page", [p for p in PAGES if fences(p, "toml")], ids=name_of)
def test_pieces_of_recipes_are_valid(page: Path) -> None:
    for piece in map(tomllib.loads, fences(page, "toml")):
        if piece.keys() <= RunConfig.model_fields.keys():
            RunConfig.model_validate(piece)


def test_the_readme_lists_every_command() -> None:
    text = README.read_text()
    assert [name for name in COMMANDS if f"`palestra {name}" not in text] == []
    line = next(line for line in text.splitlines() if "not in this version" in line)
    assert re.findall(r"`(\w+)`", line) == list(LATER)


@pytest.mark.parametrize("name", LATER)
def test_later_commands_answer(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "anything"]) == 2
    assert capsys.readouterr().err == f"palestra: {name}: not in this version\n"


def test_the_configuration_page_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("page", ROOT / "docs/make_configuration.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written = (ROOT / "docs/configuration.md").read_text()
    assert written == module.page(), "run docs/make_configuration.py"


def test_readme_recipes_and_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for page in PAGES:
        text = page.read_text()
        for target in re.findall(r"(?m)^make (\w+)|`make (\w+)`", text):
            assert f"\n{''.join(target)}:" in makefile, (page, target)
        for recipe in re.findall(r"recipes/\w+\.toml", text):
            assert (ROOT / recipe).is_file(), (page, recipe)


def test_pages_show_the_last_checkpoint_of_the_tiny_recipe() -> None:
    steps = load_recipe(ROOT / "recipes/tiny.toml").config.rl.steps
    for page in PAGES:
        shown = re.findall(r"runs/tiny/checkpoints/step-(\d+)", page.read_text())
        assert set(shown) <= {str(steps)}, page
        more = re.findall(r"tiny\.toml --set rl\.steps=(\d+)", page.read_text())
        assert all(int(number) > steps for number in more), page


def test_ci_runs_the_readme_s_test_command() -> None:
    (last,) = (ROOT / ".ci/run").read_text().strip().splitlines()[-1:]
    assert last == "make test" and "make test" in fences(README, "sh")[0]


def files() -> Iterator[Path]:
    """Every text file of the repository; links and what is made here are left out."""
    folders = [ROOT]
    while folders:
        for path in sorted(folders.pop().iterdir()):
            made = path.name in MADE or path.name.startswith((".venv", ".git"))
            if made or path.is_symlink() or path.name.endswith(("cache", "cache__", ".egg-info")):
                continue
            if path.is_dir():
                folders.append(path)
            elif path.suffix not in {".png", ".gz", ".safetensors"}:
                yield path


def test_no_file_names_a_package_host_or_a_path_of_one_machine() -> None:
    found = [
        f"{name_of(path)}: {text}"
        for path in files()
        for text in FORBIDDEN
        if text.encode() in OF_EVERY_MACHINE.sub(b"", path.read_bytes())
    ]
    assert found == []
