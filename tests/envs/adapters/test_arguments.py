"""Arguments of tools that other projects describe, as formats that carry only text write them."""

from __future__ import annotations

import pytest

from palestra.envs.arguments import ToolError, accept
from palestra.rl.types import Json, Tool, ToolCall

KINDS = {"n": "number", "xs": "array", "o": "object"}
TOOL = Tool(
    name="t",
    description="",
    parameters={"properties": {name: {"type": kind} for name, kind in KINDS.items()}},
)


@pytest.mark.parametrize(
    ("name", "given", "read"),
    [("n", "2.5", 2.5), ("n", 3, 3), ("xs", "[1, 2]", [1, 2]), ("o", '{"a": []}', {"a": []})],
)
def test_json_is_read_from_text(name: str, given: Json, read: Json) -> None:
    assert accept(ToolCall(name="t", arguments={name: given}), [TOOL]) == {name: read}


@pytest.mark.parametrize(
    ("name", "given"), [("n", "x"), ("n", True), ("xs", "{}"), ("o", "[" * 100_000), ("o", [])]
)
def test_anything_else_is_told_to_the_policy(name: str, given: Json) -> None:
    with pytest.raises(ToolError, match=f"{name} must be an? {KINDS[name]}"):
        accept(ToolCall(name="t", arguments={name: given}), [TOOL])
