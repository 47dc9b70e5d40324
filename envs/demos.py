"""What demonstrations are made of: tool calls and their answers."""

from __future__ import annotations

from collections.abc import Mapping

from palestra.rl.types import DemoStep, Json, Message, ToolCall


def called(name: str, arguments: Mapping[str, Json], observation: str = "") -> DemoStep:
    """A reply that is one call and nothing else, and what the tool answered.

    Example: ``called("submit", {"answer": "42"})``
    """
    call = ToolCall(name=name, arguments=arguments)
    message = Message(role="assistant", content="", calls=(call,))
    return DemoStep(message=message, observation=observation)
