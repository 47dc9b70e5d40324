"""What a judge is shown of a trajectory: what the agent said, what it called, what it changed."""

from __future__ import annotations

import json

from palestra.rewards.judging.questions import Response
from palestra.rewards.judging.quoting import shortened
from palestra.rl.types import Message, Trajectory


def response_of(trajectory: Trajectory, limit: int) -> Response:
    """Replies with their tool calls, and the patch, in ``limit`` characters: of more, the beginning
    and the end are shown. Neither thoughts nor what tools answered are part of it."""
    said = [shown for turn in trajectory.turns if (shown := _shown(turn.message))]
    if trajectory.patch:
        said.append(f"What it changed:\n{trajectory.patch}")
    return Response(id=trajectory.id, text=shortened("\n\n".join(said), limit))


def task_of(trajectory: Trajectory, limit: int) -> str:
    """What the agent was asked, its system prompt included, shortened in the same way."""
    asked = [f"{message.role}: {message.content}" for message in trajectory.prompt]
    return shortened("\n\n".join(asked), limit)


def _shown(message: Message) -> str:
    words = message.content.rpartition("</think>")[2].strip()
    calls = [
        f"called {call.name} {json.dumps(dict(call.arguments), ensure_ascii=False, default=str)}"
        for call in message.calls
    ]
    return "\n".join([words, *calls] if words else calls)
