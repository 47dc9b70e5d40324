"""The reward ``faithfulness``: nothing that the policy says has been made up."""

from __future__ import annotations

from palestra.rewards.faithfulness.grounding import checkable, context_of, made_up
from palestra.rewards.faithfulness.sentences import sentences
from palestra.rl.types import Sandbox, Trajectory


async def faithfulness(trajectory: Trajectory, box: Sandbox | None) -> float:
    """Share of the last reply's sentences with a number or a name that have none which is neither
    in the prompt nor in what tools answered, in [0, 1]; 1.0 where there is no such sentence.

    Who says nothing makes nothing up: it belongs beside a reward for the answer itself.
    """
    context = context_of(context_text(trajectory))
    said = [sentence for sentence in sentences(reply_of(trajectory)) if checkable(sentence)]
    if not said:
        return 1.0
    return sum(not made_up(sentence, context) for sentence in said) / len(said)


def reply_of(trajectory: Trajectory) -> str:
    """What the policy said last, without its thoughts, and the texts that it handed to a tool."""
    if not trajectory.turns:
        return ""
    message = trajectory.turns[-1].message
    words = message.content.rpartition("</think>")[2].strip()
    handed = [value for call in message.calls for value in call.arguments.values()]
    return "\n".join([words, *(value for value in handed if isinstance(value, str))])


def context_text(trajectory: Trajectory) -> str:
    """What the policy was given: the prompt, and what tools answered."""
    asked = [message.content for message in trajectory.prompt]
    return "\n".join([*asked, *(turn.observation for turn in trajectory.turns[:-1])])
