"""A scripted player that works through errands whatever fails, and says what that comes to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from palestra.envs.tool_use.actions import Action, Wait
from palestra.envs.tool_use.machine import step
from palestra.envs.tool_use.state import State


@dataclass(frozen=True)
class Deed:
    """One change: the call that shows whether it is done and with which ids, and the call that does
    it, made from what is there."""

    look: Action
    act: Callable[[State], Action]


def done(state: State, deeds: Sequence[Deed]) -> State:
    """The state after all deeds where no call fails."""
    for deed in deeds:
        state, _ = step(state.model_copy(update={"faults": ()}), deed.act(state))
    return state


def play(start: State, deeds: Sequence[Deed]) -> tuple[State, list[Action]]:
    """The state after all deeds in spite of the faults of ``start``, and the calls made.

    It looks before it acts, and again after a call that failed.
    """
    state, calls = start, list[Action]()

    def call(action: Action) -> str:
        nonlocal state
        state, answer = step(state, action)
        calls.append(action)
        if (left := state.closed_until - state.clock) > 0:
            call(Wait(seconds=left))
        return answer

    for deed in deeds:
        goal = done(state, [deed]).content()
        while True:
            while call(deed.look).startswith("error"):
                pass
            if state.content() == goal or not call(deed.act(state)).startswith("error"):
                break
    return state, calls
