"""docs/metrics.md names every metric that the code emits, and no other; so do those who show them.

Metrics are emitted as keys of dictionaries. What stands in the place of a variable in such a key is
known to the object that fills it in, or written in capitals in the glossary.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast, get_args

import pytest

from palestra.policies.leaks import GROWTH
from palestra.rl.config import HackingSign
from palestra.rl.types import Stop
from palestra.sandbox.base import Backend
from palestra.sandbox.config import PoolConfig
from palestra.sandbox.pool import Pool

ROOT = Path(__file__).resolve().parents[1]
EMITTERS = [
    *(
        path
        for part in ("rl", "policies", "rewards/judging")
        for path in ROOT.glob(f"{part}/**/*.py")
    ),
    ROOT / "sandbox/fleet.py",
]
SHOWN_BY = [*ROOT.glob("deploy/**/*.py"), *ROOT.glob("deploy/dashboard/static/views/*.js")]
NAME = re.compile(r"[a-z_*]+(/[a-z0-9_*]+)+")
QUOTED = re.compile(r"[\"']([a-z_]+(?:/[a-z0-9_]+)+)[\"']")

PLAYED = "".join(
    path.read_text() for part in ("rl", "rollout") for path in ROOT.glob(f"{part}/*.py")
)
LANES = {*re.findall(r"\.(?:busy|lane)\(\"(\w+)\"\)", PLAYED), "idle"}
NO_BOXES = cast(Backend, SimpleNamespace(name="none", guarantees=frozenset()))
FILLED_IN = {
    "*/failure_frac": ["infra/failure_frac", "task/failure_frac"],
    "stop/*": [f"stop/{stop.value}" for stop in Stop],
    "hacking/*": [f"hacking/{sign}" for sign in get_args(HackingSign)],
    "timing_s/*": [f"timing_s/{lane}" for lane in LANES],
    "memory/*": [f"memory/{name}" for name in GROWTH],
    "sandbox/*": [*Pool(NO_BOXES, PoolConfig(reuse=False), places=1).metrics()],
    "failed/*": ["sandbox/failed/*"],
}
"""What keys with a variable in them can be; the others are names that a run makes up."""

MADE_UP = {
    *("reward/*/mean", "reward/*/abstained_frac", "shaping/*/mean", "sandbox/failed/*"),
    "actor/max_logit/layer_*",
}
NO_SLASH = {"pass_rate"}


def text_of(node: ast.expr | None) -> str:
    """The text that a node writes, with ``*`` for what is not known."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        text = "".join(text_of(part) or "*" for part in node.values)
        return re.sub(r"^\*(?=[a-z])", "", text)  # the mark of a maximum
    return ""


def keys_in(tree: ast.AST) -> Iterator[ast.expr | None]:
    """Keys that are written, and constants, which may be used as such."""
    for node in ast.walk(tree):
        match node:
            case ast.Dict(keys=keys):
                yield from keys
            case ast.DictComp(key=key):
                yield key
            case ast.Subscript(slice=key, ctx=ast.Store()):
                yield key
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if name.isupper():
                yield value


def emitted() -> set[str]:
    """Every name that the code can emit, with ``*`` for what only a run knows."""
    found = {text_of(key) for path in EMITTERS for key in keys_in(ast.parse(path.read_text()))}
    names = {name for name in found if NAME.fullmatch(name)} | NO_SLASH & found
    return {one for name in names for one in FILLED_IN.get(name, [name])}


@pytest.fixture(scope="module")
def glossary(metric_names: list[str]) -> list[str]:
    return [re.sub(r"[A-Z]+", "*", name) for name in metric_names]


def test_the_glossary_names_what_is_emitted_and_nothing_else(glossary: list[str]) -> None:
    assert len(glossary) == len(set(glossary)) > 100
    assert set(glossary) == emitted()
    assert {name for name in glossary if "*" in name} == MADE_UP


def test_what_is_shown_is_emitted(is_metric: Callable[[str], bool], glossary: list[str]) -> None:
    families = {name.partition("/")[0] for name in glossary}
    shown = {name for path in SHOWN_BY for name in QUOTED.findall(path.read_text())}
    panels = (ROOT / "deploy/dashboard/grafana.json").read_text()
    shown |= set(re.findall(r'name=\\"([^\\]+)\\"', panels))
    asked = {name for name in shown if name.partition("/")[0] in families}
    assert len(asked) > 30 and [name for name in sorted(asked) if not is_metric(name)] == []


def test_the_glossary_names_keys_that_there_are() -> None:
    page = (ROOT / "docs/metrics.md").read_text()
    keys = re.findall(r"`((?:rl|rollout|rewards|sandbox|policy)\.[a-z_.]+)`", page)
    known = (ROOT / "docs/configuration.md").read_text()
    assert keys and [key for key in keys if f"`{key}" not in known] == []


def test_every_metric_has_a_meaning() -> None:
    rows = re.findall(r"^\| `.*\|$", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE)
    cells = [re.split(r"(?<!\\)\|", row)[1:-1] for row in rows]
    assert all(len(row) == 4 and all(cell.strip() for cell in row[:3]) for row in cells)
