"""Messages and what a client answers."""

from dataclasses import dataclass
from typing import Any


class State(dict):
    pass


@dataclass
class Tool:
    name: str
    description: str
    parameters: dict


@dataclass
class Said:
    content: str
    tool_calls: Any = None
    role: str = ""

    def __getitem__(self, name):
        return getattr(self, name)


@dataclass
class UserMessage(Said):
    role: str = "user"


@dataclass
class SystemMessage(Said):
    role: str = "system"


@dataclass
class ToolMessage(Said):
    role: str = "tool"


@dataclass
class AssistantMessage(Said):
    role: str = "assistant"


def message_of(found):
    kinds = {"system": SystemMessage, "user": UserMessage, "assistant": AssistantMessage}
    return kinds[found["role"]](found["content"])


@dataclass
class ToolCall:
    id: str
    name: str
    arguments: str


@dataclass
class ResponseMessage:
    content: str
    tool_calls: Any
    finish_reason: str
    is_truncated: bool


@dataclass
class Response:
    id: str
    created: int
    model: str
    message: ResponseMessage
