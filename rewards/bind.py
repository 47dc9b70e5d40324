"""From what a recipe names to a reward: options checked, and what it asks for supplied.

A reward takes its options as keywords with defaults. One that needs more before it can judge
anything, such as a judge, is made by a factory: an ordinary function or a class whose arguments are
all keywords, and which returns the reward.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial, update_wrapper
from typing import Any, get_type_hints

from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError

from palestra.rewards.kinds import AnyReward, RewardFactory, is_async
from palestra.rl.errors import UserError


def bound(
    name: str,
    thing: AnyReward | RewardFactory,
    options: Mapping[str, object],
    given: Mapping[str, object],
) -> AnyReward:
    """The reward ``thing``, or what the factory ``thing`` makes, with these options; arguments and
    errors as of ``keywords_of``."""
    keywords = keywords_of(name, thing, options, given)
    reward: Any = thing
    if not is_async(thing):
        reward = reward(**keywords)
    elif keywords:
        reward = update_wrapper(partial(reward, **keywords), reward)
    return reward  # type: ignore[no-any-return]


def keywords_of(
    name: str,
    thing: AnyReward | RewardFactory,
    options: Mapping[str, object],
    given: Mapping[str, object],
) -> dict[str, object]:
    """What ``thing`` is to be called with: its options, and what it asks for of ``given`` by the
    name of a keyword, such as ``task_of`` or ``judge``.

    Raises ``UserError`` that names the reward ``name`` for unknown, wrong and missing options.
    """
    known = _keywords(thing)
    for option, value in options.items():
        if option not in known or option in given:
            free = ", ".join(key for key in known if key not in given) or "none"
            raise UserError(f"reward {name} has no option {option!r}; it has: {free}")
        _check(name, thing, option, value)
    keywords = {key: value for key, value in given.items() if key in known} | dict(options)
    for key, parameter in known.items():
        if parameter.default is parameter.empty and key not in keywords:
            raise UserError(f"reward {name} asks for {key!r}, which it is not given here")
    return keywords


def _keywords(thing: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(thing).parameters.values()
    return {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY}


def _check(name: str, thing: Callable[..., Any], option: str, value: object) -> None:
    hinted = thing.__init__ if inspect.isclass(thing) else thing
    try:
        kind = get_type_hints(hinted).get(option, object)
    except (NameError, TypeError):  # hints that only a type checker can read
        return
    try:
        TypeAdapter(kind).validate_python(value, strict=True)
    except PydanticSchemaGenerationError as error:
        raise UserError(f"reward {name}: no recipe can say what {option!r} is") from error
    except ValidationError as error:
        said = error.errors()[0]["msg"].removeprefix("Input ")
        raise UserError(f"reward {name}: option {option} = {value!r}: {said}") from error
