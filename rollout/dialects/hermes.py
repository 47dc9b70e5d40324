"""Hermes / Qwen2.5 / Qwen3: one JSON object per call."""

from __future__ import annotations

import json

from palestra.rl.types import ToolCall
from palestra.rollout.dialects.base import Dialect, Inexpressible, Malformed
from palestra.rollout.quoting import Markup, Quote


class Hermes(Dialect):
    """``<tool_call>\\n{"name": ..., "arguments": {...}}\\n</tool_call>``"""

    def parse_body(self, text: str) -> ToolCall:
        try:
            body = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise Malformed(f"the tool call is not JSON: {error}") from None
        if not isinstance(body, dict) or set(body) != {"name", "arguments"}:
            raise Malformed('a tool call needs exactly the keys "name" and "arguments"')
        name, arguments = body["name"], body["arguments"]
        if not isinstance(name, str) or not isinstance(arguments, dict):
            raise Malformed('"name" must be a string and "arguments" an object')
        return ToolCall(name=name, arguments=arguments)

    def body(self, call: ToolCall) -> Markup:
        shown = {"name": call.name, "arguments": dict(call.arguments)}
        try:
            text = json.dumps(shown, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise Inexpressible(f"{call.name}: not JSON: {error}") from None
        # In JSON a "<" stands inside of strings only, and may be written as an escape.
        for marker in (self.open_marker, self.close_marker):
            text = text.replace(marker, marker.replace("<", "\\u003c"))
        return ["\n", Quote(text), "\n"]


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object; Python alone would silently keep the last of two equal keys."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key was given twice")
    return found


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")
