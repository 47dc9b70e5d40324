"""What a training run leaves out before it begins, in real boxes."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path

import pytest

from palestra.deploy.config_file import load_recipe
from palestra.deploy.console import Console
from palestra.deploy.tasks import workshop
from palestra.rl.errors import UserError

ROWS = [
    {
        "task_id": f"Add/{name}",
        "prompt": f"def add_{name}(a, b):\n",
        "canonical_solution": f"    return {body}\n",
        "test": "def check(f):\n    assert f(1, 2) == 3\n",
        "entry_point": f"add_{name}",
    }
    for name, body in {"good": "a + b", "bad": "a - b"}.items()
]


@pytest.mark.parametrize(
    ("gate", "left"), [("true", ["Add/good"]), ("false", ["Add/good", "Add/bad"])]
)
def test_tasks_that_are_not_fit_are_left_out_and_named(
    tmp_path: Path, gate: str, left: list[str]
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    config = load_recipe(None, [f"tasks.source=humaneval:{path}", f"tasks.gate={gate}"]).config
    said = io.StringIO()

    async def ids() -> list[str]:
        with Console(stream=said) as console:
            async with workshop(config, tmp_path / "cache", console) as shop:
                return [task.id for task in shop.tasks.tasks]

    assert asyncio.run(ids()) == left
    words = " ".join(said.getvalue().split())
    assert ("left out Add/bad: the reference fails:" in words) == (gate == "true"), words


@pytest.mark.parametrize(
    ("env", "says"), [("palestra/SWEBash-v0", "does not play"), ("palestra/No-v0", "No-v0")]
)
def test_an_environment_that_cannot_play_the_tasks_is_refused(
    tmp_path: Path, env: str, says: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROWS[0]) + "\n")
    given = [f"tasks.source=humaneval:{path}", "tasks.gate=false", f"tasks.env={env}"]
    config = load_recipe(None, given).config

    async def begun() -> None:
        with Console(stream=io.StringIO()) as console:
            async with workshop(config, tmp_path / "cache", console):
                pass

    with pytest.raises(UserError, match=says):
        asyncio.run(begun())
