"""Every reward function by name: ours, and those that installed packages offer as plugins.

A plugin is an entry point of the group ``palestra.rewards`` that names one function
``async (Trajectory, Sandbox | None) -> float``. Nothing is imported before it is asked for by name,
except by ``describe``.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

from palestra.rewards.budget import submitted
from palestra.rewards.format import well_formed
from palestra.rewards.tests_pass import tests_fraction, tests_pass
from palestra.rl.errors import UserError
from palestra.rl.types import RewardFn

GROUP = "palestra.rewards"

REWARDS: dict[str, RewardFn] = {
    "tests_pass": tests_pass,
    "tests_fraction": tests_fraction,
    "well_formed": well_formed,
    "submitted": submitted,
}


@dataclass(frozen=True, kw_only=True)
class RewardRow:
    """One line of ``palestra rewards``; ``error`` says why a plugin cannot be used.

    Example: ``RewardRow(name="tests_pass", origin="palestra", version="0.1.0", summary="1.0 when
    ...")``
    """

    name: str
    origin: str
    version: str
    summary: str
    error: str = ""


def find(name: str) -> RewardFn:
    """The reward function called ``name``; raises ``UserError`` when there is none."""
    if name in REWARDS:
        return REWARDS[name]
    plugins = _plugins()
    if name not in plugins:
        raise UserError(f"no reward {name!r}; there are: {', '.join([*REWARDS, *plugins])}")
    return _load(plugins[name])


def describe() -> list[RewardRow]:
    """One row per reward function, ours first; a broken plugin is a row with its error."""
    from palestra import __version__

    ours = [
        RewardRow(name=name, origin="palestra", version=__version__, summary=_summary(function))
        for name, function in REWARDS.items()
    ]
    return ours + [_row(plugin) for plugin in _plugins().values()]


def _plugins() -> dict[str, EntryPoint]:
    found = sorted(entry_points(group=GROUP), key=lambda point: point.name)
    return {point.name: point for point in found if point.name not in REWARDS}


def _load(plugin: EntryPoint) -> RewardFn:
    try:
        function = plugin.load()
    except (ImportError, AttributeError) as error:
        raise UserError(f"reward plugin {plugin.name} ({plugin.value}): {error}") from error
    if not callable(function):
        raise UserError(f"reward plugin {plugin.name} ({plugin.value}) is not a function")
    loaded: RewardFn = function
    return loaded


def _row(plugin: EntryPoint) -> RewardRow:
    origin, version = (plugin.dist.name, plugin.dist.version) if plugin.dist else ("unknown", "")
    summary = error = ""
    try:
        summary = _summary(_load(plugin))
    except UserError as failure:
        error = str(failure)
    return RewardRow(name=plugin.name, origin=origin, version=version, summary=summary, error=error)


def _summary(function: object) -> str:
    return (inspect.getdoc(function) or "").partition("\n")[0]
