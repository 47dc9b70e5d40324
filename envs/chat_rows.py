"""Rows of chats and texts for supervised learning, as the field writes them.

A chat is ``{"messages": [{"role": "user", "content": "..."}, ...]}`` with OpenAI's ``tool_calls``
where an assistant calls a tool; a text is ``{"text": "..."}``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from typing import TypeAlias

from palestra.envs.rows import BadRow
from palestra.rl.types import Json, Message, ToolCall

Chat: TypeAlias = tuple[Message, ...]
ROLES = ("system", "user", "assistant", "tool")


def chat_or_text(row: Mapping[str, Json]) -> Chat | str:
    """The messages of a chat, or a text; raises ``BadRow`` with the name of the field.

    A chat has an assistant's message that answers something, and no two of them in a row.
    """
    if row.get("messages") is None:
        if row.get("text") is None:
            raise BadRow("field messages or text: missing")
        return _text(row["text"], "text")
    messages = row["messages"]
    if not isinstance(messages, list) or not messages:
        raise BadRow("field messages: not a list of messages")
    chat = tuple(_message(entry, f"messages[{n}]") for n, entry in enumerate(messages))
    roles = [message.role for message in chat]
    if "assistant" not in roles:
        raise BadRow("field messages: no message of role assistant to learn from")
    if roles[0] == "assistant" or ("assistant", "assistant") in pairwise(roles):
        raise BadRow("field messages: an assistant's message that answers nothing")
    if "system" in roles[1:]:
        raise BadRow("field messages: a system message that is not the first")
    return chat


def _message(entry: Json, where: str) -> Message:
    if not isinstance(entry, dict):
        raise BadRow(f"field {where}: not an object")
    role = entry.get("role")
    if role not in ROLES:
        raise BadRow(f"field {where}.role: not one of {', '.join(ROLES)}")
    calls = entry.get("tool_calls") or []
    if not isinstance(calls, list) or (calls and role != "assistant"):
        raise BadRow(f"field {where}.tool_calls: not a list of calls of an assistant")
    content = entry.get("content")
    words = "" if content is None and calls else _text(content, f"{where}.content")
    made = tuple(_call(call, f"{where}.tool_calls[{n}]") for n, call in enumerate(calls))
    return Message(role=role, content=words, calls=made)


def _call(entry: Json, where: str) -> ToolCall:
    function = entry.get("function") if isinstance(entry, dict) else None
    if not isinstance(function, dict):
        raise BadRow(f"field {where}.function: not an object")
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError) as error:
            raise BadRow(f"field {where}.function.arguments: not JSON") from error
    if not isinstance(arguments, dict):
        raise BadRow(f"field {where}.function.arguments: not an object")
    name = _text(function.get("name"), f"{where}.function.name")
    return ToolCall(name=name, arguments=arguments)


def _text(value: Json, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise BadRow(f"field {where}: not a text, or empty")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadRow(f"field {where}: has characters that cannot be written") from error
    return value
