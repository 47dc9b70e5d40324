"""Tool calls checked against the schemas of the tools that an environment offers.

Understands the part of JSON schema that tools use: ``properties`` with a ``type``, and
``required``. Some tool-call formats carry every value as text, so an integer may also be written as
a string of digits, a boolean as ``true`` or ``True``, and a number, an array or an object as its
JSON text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from palestra.rl.types import Json, Tool, ToolCall

_DIGITS = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_TRUTH = {"true": True, "false": False}
_JSON: Mapping[str, tuple[type, ...]] = {
    "number": (int, float),
    "array": (list,),
    "object": (dict,),
}


class ToolError(Exception):
    """A tool was used wrongly; the text goes to the policy as the observation."""


def tool(name: str, description: str, **arguments: str) -> Tool:
    """A ``Tool`` from ``argument="type: what it is"``; a type that ends in ``?`` is optional.

    Example: ``tool("replace", "Replace a line.", line="integer: 1-based", path="string?: a file")``
    """
    properties: dict[str, Json] = {}
    required: list[Json] = []
    for argument, wanted in arguments.items():
        kind, _, text = wanted.partition(":")
        if not kind.endswith("?"):
            required.append(argument)
        properties[argument] = {"type": kind.rstrip("?"), "description": text.strip()}
    schema: dict[str, Json] = {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }
    return Tool(name=name, description=description, parameters=schema)


def accept(call: ToolCall, tools: Sequence[Tool]) -> dict[str, Json]:
    """The arguments of ``call`` with integers as integers.

    Raises ``ToolError`` with a text that names what is allowed.
    """
    chosen = next((tool for tool in tools if tool.name == call.name), None)
    if chosen is None:
        raise ToolError(f"no tool {call.name!r}; use one of: {', '.join(t.name for t in tools)}")
    properties = chosen.parameters.get("properties")
    known = properties if isinstance(properties, Mapping) else {}
    for name in call.arguments:
        if name not in known:
            raise ToolError(f"{call.name} has no argument {name!r}; {_usage(chosen.name, known)}")
    required = chosen.parameters.get("required")
    for needed in required if isinstance(required, list) else []:
        if str(needed) not in call.arguments:
            raise ToolError(f"{call.name} needs {needed}; {_usage(chosen.name, known)}")
    return {name: _value(name, value, known[name]) for name, value in call.arguments.items()}


def _usage(name: str, known: Mapping[str, Json]) -> str:
    return f"use {name}({', '.join(known)})"


def _value(name: str, value: Json, schema: Json) -> Json:
    kind = schema.get("type") if isinstance(schema, dict) else None
    if kind == "integer":
        return _integer(name, value)
    if kind == "string" and not isinstance(value, str):
        raise ToolError(f"{name} must be a string, not {type(value).__name__}")
    if kind == "boolean":
        return _boolean(name, value)
    if isinstance(kind, str) and kind in _JSON:
        return _read(name, value, kind)
    return value


def _read(name: str, value: Json, kind: str) -> Json:
    found = value
    if isinstance(value, str):
        try:
            found = json.loads(value)
        except (ValueError, RecursionError):
            found = None
    if not isinstance(found, _JSON[kind]) or isinstance(found, bool):
        raise ToolError(f"{name} must be {'an' if kind[0] in 'ao' else 'a'} {kind} in JSON")
    return found


def _boolean(name: str, value: Json) -> bool:
    found = _TRUTH.get(value.lower()) if isinstance(value, str) else value
    if not isinstance(found, bool):
        raise ToolError(f"{name} must be true or false")
    return found


def _integer(name: str, value: Json) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        return int(value)
    raise ToolError(f"{name} must be a whole number such as 3")
