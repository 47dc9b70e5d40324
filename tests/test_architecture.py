"""The import rules of the design, and the layout that imports rely on."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from palestra.rl.presets import PUBLISHED

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("rl", "envs", "rewards", "rollout", "sandbox", "policies", "deploy")

COMMON = {
    "palestra.rl.types",
    "palestra.rl.errors",
    "palestra.rl.settings",
    "palestra.rl.plugins",
    "palestra.rl.objectives.config",
    "palestra.rl.objectives.tokens",
}
CONFIGS = {f"palestra.{name}.config" for name in FOLDERS if name != "deploy"}
LEAVES = COMMON | CONFIGS

MAY_IMPORT = {
    "sandbox": set(),
    "policies": set(),
    "rewards": set(),
    "envs": {"rewards"},
    "rollout": {"envs", "rewards"},
    "rl": {"envs", "rewards", "rollout"},
    "deploy": set(FOLDERS),
}

ONLY_IN = {
    "ray": ("deploy/",),
    "vllm": ("policies/",),
    "deepspeed": ("policies/",),
    "transformers": ("policies/",),
    "peft": ("policies/",),
    # The viewer decodes single ids of a finished run without importing transformers.
    "tokenizers": ("policies/", "deploy/token_text.py"),
    "docker": ("sandbox/", "deploy/"),
    "kubernetes": ("sandbox/", "deploy/"),
    "websockets": ("sandbox/", "deploy/", "envs/adapters/"),
    "verifiers": ("envs/adapters/",),
    "torch": ("policies/", "rl/objectives/"),
    "jinja2": ("policies/",),
    "pyarrow": ("envs/",),
    "math_verify": ("rewards/",),
    "ruff": ("rewards/",),
    "openai": ("rewards/judging/",),
    "fastapi": ("deploy/", "rollout/"),
}


class Import(NamedTuple):
    """``module`` as written, relative dots included, and the line it stands in."""

    module: str
    line: int


def sources(*folders: str) -> list[Path]:
    return sorted(p for name in folders or FOLDERS for p in (ROOT / name).rglob("*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(text: str) -> Iterator[Import]:
    """Every import statement, lazy ones included; ``from a import b`` gives ``a.b``."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from (Import(f"{module}.{alias.name}", node.lineno) for alias in node.names)


def our_module(module: str) -> str:
    """``palestra.rl.types.Task`` -> ``palestra.rl.types``: the file that is imported."""
    parts = module.split(".")
    while len(parts) > 2:
        path = ROOT.joinpath(*parts[1:])
        if path.is_dir() or path.with_suffix(".py").is_file():
            return ".".join(parts)
        parts.pop()
    return ".".join(parts)


def forbidden(folder: str, module: str) -> bool:
    """May a file in ``folder`` not import ``module``, a module of ours?"""
    found = our_module(module)
    parts = found.split(".")
    if len(parts) < 2 or parts[1] not in FOLDERS:  # palestra itself: the version
        return False
    return not (parts[1] == folder or parts[1] in MAY_IMPORT[folder] or found in LEAVES)


@pytest.mark.parametrize("folder", FOLDERS)
def test_folders_import_only_what_they_may(folder: str) -> None:
    wrong = [
        f"{name_of(path)}:{line} imports {module}"
        for path in sources(folder)
        for module, line in imports(path.read_text())
        if module.split(".")[0] == "palestra" and forbidden(folder, module)
    ]
    assert wrong == []


@pytest.mark.parametrize("library", ONLY_IN)
def test_libraries_are_imported_only_where_they_belong(library: str) -> None:
    wrong = [
        f"{name_of(path)}:{line} imports {module}"
        for path in sources()
        if not name_of(path).startswith(ONLY_IN[library])
        for module, line in imports(path.read_text())
        if module.split(".")[0] == library
    ]
    assert wrong == []


def test_our_folders_are_never_imported_bare_or_relatively() -> None:
    wrong = [
        f"{name_of(path)}:{line} imports {module}"
        for path in sources()
        for module, line in imports(path.read_text())
        if module.split(".")[0] in {"", *FOLDERS, "tests"}
    ]
    assert wrong == []


def test_types_import_the_standard_library_only() -> None:
    found = {module.split(".")[0] for module, _ in imports((ROOT / "rl/types.py").read_text())}
    assert found <= sys.stdlib_module_names | {"__future__"}


@pytest.mark.parametrize("leaf", sorted(LEAVES))
def test_leaves_import_leaves_only(leaf: str) -> None:
    path = ROOT.joinpath(*leaf.split(".")[1:]).with_suffix(".py")
    if not path.is_file():
        assert leaf in CONFIGS, "a common module is missing"
        return
    ours = {our_module(m) for m, _ in imports(path.read_text()) if m.startswith("palestra")}
    assert ours <= COMMON


def test_the_learner_knows_no_objective_by_name() -> None:
    names = set(PUBLISHED) - {"plugin"}
    wrong = [
        f"{name_of(path)} says {word}"
        for path in sources("policies")
        for word in re.findall(r"\w+", path.read_text())
        if word in names
    ]
    assert wrong == []


def test_packages_are_links_to_the_folders_of_the_same_name() -> None:
    package = ROOT / ".pkg" / "palestra"
    links = {path.name: path for path in package.iterdir() if path.is_symlink()}
    assert set(links) == set(FOLDERS)
    for name, link in links.items():
        assert not link.readlink().is_absolute()
        assert link.resolve() == ROOT / name
        assert (link / "__init__.py").is_file()
    assert (package / "__init__.py").is_file() and not (package / "__init__.py").is_symlink()


def test_no_file_is_called_utils() -> None:
    assert [name_of(path) for path in sources() if path.stem in {"utils", "helpers"}] == []


@pytest.mark.parametrize(
    ("folder", "module", "wrong"),
    [
        ("sandbox", "palestra.rl.types.Task", False),
        ("sandbox", "palestra.rl.journal.Journal", True),
        ("sandbox", "palestra.envs.config.TasksConfig", False),
        ("rewards", "palestra.envs.base", True),
        ("envs", "palestra.rewards.score.score", False),
        ("envs", "palestra.rollout.tokens", True),
        ("policies", "palestra.sandbox", True),
        ("policies", "palestra.policies.guards", False),
        ("rollout", "palestra.policies.tiny", True),
        ("rl", "palestra.deploy.cli", True),
        ("deploy", "palestra.rl.train", False),
        ("envs", "palestra.__version__", False),
    ],
)
def test_the_rule_itself(folder: str, module: str, wrong: bool) -> None:
    assert forbidden(folder, module) is wrong


def test_every_way_to_import_is_seen() -> None:
    text = (
        "import a, b.c\nfrom d import e, f\nfrom . import g\nfrom ..h import i\n"
        "def x():\n    import lazy\n"
    )
    assert [found.module for found in imports(text)] == [
        *("a", "b.c", "d.e", "d.f", "..g", "..h.i", "lazy"),
    ]
