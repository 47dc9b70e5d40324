"""Conversations of other projects, as ours: messages as dicts or objects, and the tool to talk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from palestra.envs.arguments import tool
from palestra.rl.errors import UserError
from palestra.rl.types import Json, Message, ToolCall

REPLY = tool(
    "reply",
    "Send this as your message. What you write outside of this call is not seen.",
    text="string: the whole message",
)
"""What stands for an assistant message in words: every reply of a policy of ours is a call."""


def as_messages(found: Json) -> tuple[Message, ...]:
    """A conversation in the form of chat completions; a text alone is one of the user.

    Raises ``UserError`` for anything else, such as a message with an image.
    """
    if isinstance(found, str):
        return (Message(role="user", content=found),)
    if not isinstance(found, Sequence):
        raise UserError("a conversation is a text or a list of messages")
    return tuple(_message(each) for each in found)


def _message(found: Json) -> Message:
    role, content, calls = (_field(found, name) for name in ("role", "content", "tool_calls"))
    if role not in ("system", "user", "assistant", "tool"):
        raise UserError(f"a message with the role {role!r} cannot be played")
    made = tuple(_call(each) for each in calls) if isinstance(calls, Sequence) else ()
    return Message(role=role, content=_text(content), calls=made)


def _text(content: Json) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    parts = content if isinstance(content, Sequence) else [content]
    texts = [_field(part, "text") for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise UserError("a message with something else than text cannot be played")
    return "\n".join(str(text) for text in texts)


def _call(found: Json) -> ToolCall:
    inner = _field(found, "function") or found
    name, arguments = _field(inner, "name"), _field(inner, "arguments")
    try:
        known = json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError as error:
        raise UserError(f"a tool call with arguments that are not JSON: {error}") from error
    if not isinstance(name, str) or not isinstance(known, Mapping):
        raise UserError("a tool call without a name or arguments")
    return ToolCall(name=name, arguments=dict(known))


def _field(found: Json, name: str) -> Json:
    if isinstance(found, Mapping):
        return found.get(name)
    return getattr(found, name, None)
