"""The two kinds of rewards, told apart by how many arguments they take, and what makes them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeAlias, TypeGuard, cast

from palestra.rl.errors import UserError
from palestra.rl.types import GroupRewardFn, RewardFn

AnyReward: TypeAlias = RewardFn | GroupRewardFn
RewardFactory: TypeAlias = Callable[..., AnyReward]
"""Makes a reward of its options, which are keywords."""

KINDS = "async (Trajectory, Sandbox | None) -> float, or async (list[Trajectory]) -> list[Reward]"


def is_single(reward: AnyReward) -> TypeGuard[RewardFn]:
    """Does it judge one episode? Raises as ``is_group``."""
    return not is_group(reward)


def is_group(reward: AnyReward) -> TypeGuard[GroupRewardFn]:
    """Does it judge siblings together? Raises ``UserError`` for what is no reward at all."""
    count = _positional(reward)
    if count not in (1, 2) or not is_async(reward):
        raise UserError(f"{name_of(reward)} is no reward; one is {KINDS}")
    return count == 1


def gives_group(thing: AnyReward | RewardFactory) -> bool:
    """As ``is_group``, also of what a factory would make: the objects of a class, or what a
    function says that it returns."""
    if is_async(thing):
        return is_group(cast(AnyReward, thing))
    if inspect.isclass(thing):
        call = getattr(thing, "__call__", None)  # noqa: B004 - the function behind it
        count = _positional(call) - 1 if inspect.iscoroutinefunction(call) else 0
    else:
        said = getattr(thing, "__annotations__", {}).get("return")
        count = {"RewardFn": 2, RewardFn: 2, "GroupRewardFn": 1, GroupRewardFn: 1}.get(said, 0)
    if count not in (1, 2):
        raise UserError(f"{name_of(thing)} neither is nor says that it makes a reward: {KINDS}")
    return count == 1


def is_async(thing: Callable[..., Any]) -> bool:
    """Is calling it awaited: a function or an object, not a factory?"""
    if inspect.isclass(thing):
        return False
    return inspect.iscoroutinefunction(thing) or inspect.iscoroutinefunction(
        getattr(thing, "__call__", None)  # noqa: B004 - the function behind it
    )


def name_of(thing: object) -> str:
    """``module:name`` of a function or of an object's class."""
    name = getattr(thing, "__qualname__", type(thing).__qualname__)
    return f"{getattr(thing, '__module__', '')}:{name}"


def _positional(reward: Callable[..., Any]) -> int:
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(reward).parameters.values()
    return sum(p.kind in positional and p.default is p.empty for p in parameters)
