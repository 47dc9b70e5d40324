"""Hermes / Qwen2.5 / Qwen3: one JSON object per call."""

from __future__ import annotations

import json

from palestra.rl.types import ToolCall
from palestra.rollout.dialects.base import Dialect, Malformed


class Hermes(Dialect):
    """``<tool_call>\\n{"name": ..., "arguments": {...}}\\n</tool_call>``"""

    def parse_body(self, text: str) -> ToolCall:
        try:
            body = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise Malformed(f"the tool call is not JSON: {error}") from None
        if not isinstance(body, dict) or set(body) != {"name", "arguments"}:
            raise Malformed('a tool call needs exactly the keys "name" and "arguments"')
        name, arguments = body["name"], body["arguments"]
        if not isinstance(name, str) or not isinstance(arguments, dict):
            raise Malformed('"name" must be a string and "arguments" an object')
        return ToolCall(name=name, arguments=arguments)

    def render(self, call: ToolCall) -> str:
        body = json.dumps({"name": call.name, "arguments": dict(call.arguments)})
        return f"{self.open_marker}\n{body}\n{self.close_marker}"
