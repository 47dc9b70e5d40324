"""Arguments of tools that other projects describe, as formats that carry only text write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palestra.envs.arguments import ToolError, accept
from palestra.rl.types import Json, Tool, ToolCall
from palestra.rollout.dialects import DIALECTS

KINDS = {"n": "number", "xs": "array", "o": "object", "b": "boolean"}
TOOL = Tool(
    name="t",
    description="",
    parameters={"properties": {name: {"type": kind} for name, kind in KINDS.items()}},
)


@pytest.mark.parametrize(
    ("name", "given", "read"),
    [
        *[("n", "2.5", 2.5), ("n", 3, 3), ("xs", "[1, 2]", [1, 2]), ("o", '{"a": []}', {"a": []})],
        *[("b", True, True), ("b", "true", True), ("b", "False", False)],
    ],
)
def test_json_is_read_from_text(name: str, given: Json, read: Json) -> None:
    assert accept(ToolCall(name="t", arguments={name: given}), [TOOL]) == {name: read}


@given(value=st.booleans() | st.integers(-9, 9) | st.lists(st.integers() | st.text(), max_size=3))
def test_a_format_of_texts_writes_what_is_read_again(value: Json) -> None:
    kind = {bool: "b", int: "n", list: "xs"}[type(value)]
    call = DIALECTS["qwen3_coder"].understood(ToolCall(name="t", arguments={kind: value}))
    assert isinstance(call.arguments[kind], str)
    assert accept(call, [TOOL]) == {kind: value}


@pytest.mark.parametrize(
    ("name", "given"),
    [("n", "x"), ("n", True), ("xs", "{}"), ("o", "[" * 100_000), ("o", []), ("b", 1)],
)
def test_anything_else_is_told_to_the_policy(name: str, given: Json) -> None:
    with pytest.raises(ToolError, match=f"{name} must be (an? {KINDS[name]}|true or false)"):
        accept(ToolCall(name="t", arguments={name: given}), [TOOL])
