"""One call of a tool, with the failures that its number has in store: a pure function."""

from __future__ import annotations

from palestra.envs.arguments import ToolError
from palestra.envs.tool_use.actions import Action, OnRow, Wait
from palestra.envs.tool_use.state import Fault, State

TIMED_OUT = "error: timed out; it may or may not have been done"
RATE_LIMIT_S = 60


def step(before: State, action: Action) -> tuple[State, str]:
    """The state after a call, and its answer; a call that fails answers ``error: ...``.

    The n-th call of a tool fails as ``faults`` says. While the rate limit holds, calls fail and do
    not count.
    """
    state = State.model_validate(before.model_dump())  # a copy, far quicker than a deep one
    left = state.closed_until - state.clock
    state.clock += 1
    if left > 0 and not isinstance(action, Wait):
        return state, f"error: too many requests; wait {left} seconds"
    number = state.calls[action.tool] = state.calls.get(action.tool, 0) + 1
    for fault in state.faults:
        if (fault.tool, fault.call) == (action.tool, number):
            return _fail(state, action, fault)
    return state, _do(state, action)


def _do(state: State, action: Action) -> str:
    try:
        return action.do(state)
    except ToolError as refused:
        return f"error: {refused}"


def _fail(state: State, action: Action, fault: Fault) -> tuple[State, str]:
    state.met.append(fault)
    if fault.kind == "rate_limit":
        state.closed_until = state.clock + RATE_LIMIT_S
        return state, f"error: too many requests; wait {RATE_LIMIT_S} seconds"
    if fault.kind == "stale_id" and isinstance(action, OnRow):
        for row in state.rows:
            if row.id == action.id:
                row.id = state.new_id()
        return state, f"error: the id {action.id} is stale; look it up again"
    if fault.kind == "lost_answer":
        _do(state, action)
    return state, TIMED_OUT
