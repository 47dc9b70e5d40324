"""Qwen3-Coder: raw text between tags, so that code needs no escaping."""

from __future__ import annotations

import json
import re
from dataclasses import replace

from palestra.rl.types import Json, ToolCall
from palestra.rollout.dialects.base import Dialect, Inexpressible, Malformed
from palestra.rollout.quoting import Markup, Quote

_NAME = r"[A-Za-z_][A-Za-z0-9_.-]{0,63}"
_CALL = re.compile(rf"\n<function=({_NAME})>\n(.*)</function>\n", re.DOTALL)
_PARAMETER = re.compile(rf"<parameter=({_NAME})>\n(.*?)\n</parameter>\n", re.DOTALL)


class Qwen3Coder(Dialect):
    """``<tool_call>\\n<function=NAME>\\n<parameter=KEY>\\nVALUE\\n</parameter>\\n</function>\\n...``

    Values are strings, those of other types their JSON text; the environment converts them by its
    own schema.
    """

    def parse_body(self, text: str) -> ToolCall:
        call = _CALL.fullmatch(text)
        if call is None:
            raise Malformed("a tool call must be <function=NAME> ... </function>")
        arguments: dict[str, object] = {}
        position, body = 0, call[2]
        while position < len(body):
            parameter = _PARAMETER.match(body, position)
            if parameter is None:
                raise Malformed("parameters must be <parameter=KEY> VALUE </parameter>")
            if parameter[1] in arguments:
                raise Malformed(f"parameter {parameter[1]} was given twice")
            arguments[parameter[1]] = parameter[2]
            position = parameter.end()
        return ToolCall(name=call[1], arguments=arguments)

    def body(self, call: ToolCall) -> Markup:
        try:
            texts = {key: _text(value) for key, value in call.arguments.items()}
        except (TypeError, ValueError, RecursionError) as error:
            raise Inexpressible(f"{call.name}: not JSON: {error}") from None
        parts: list[str | Quote] = [f"\n<function={call.name}>\n"]
        for key, text in texts.items():
            parts += [f"<parameter={key}>\n", Quote(text), "\n</parameter>\n"]
        return [*parts, "</function>\n"]

    def understood(self, call: ToolCall) -> ToolCall:
        return replace(call, arguments={key: _text(v) for key, v in call.arguments.items()})


def _text(value: Json) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
