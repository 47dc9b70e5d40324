"""Every environment by name: ours, and those that installed packages offer as plugins.

A plugin is an entry point of the group ``palestra.environments`` whose name is the environment's
name and whose value is a subclass of ``Env``, or a function with the same arguments.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol

from palestra.envs.base import Env
from palestra.envs.complete import Complete
from palestra.envs.repair import Repair
from palestra.rl.errors import UserError
from palestra.rl.types import CheckRunner

GROUP = "palestra.environments"


class EnvFactory(Protocol):
    """Makes an environment; the constructor of an ``Env`` is one."""

    def __call__(self, run_checks: CheckRunner, *, system_prompt: str | None = None) -> Env: ...


ENVIRONMENTS: Mapping[str, EnvFactory] = {Repair.name: Repair, Complete.name: Complete}


@dataclass(frozen=True, kw_only=True)
class EnvRow:
    """One line of ``palestra envs``; ``error`` says why a plugin cannot be used.

    Example: ``EnvRow(name="palestra/Repair-v0", origin="palestra", version="0.1.0", summary="Tools
    ...")``
    """

    name: str
    origin: str
    version: str
    summary: str
    error: str = ""


def make(name: str, run_checks: CheckRunner, *, system_prompt: str | None = None) -> Env:
    """The environment called ``name``; raises ``UserError`` when there is none."""
    return find(name)(run_checks, system_prompt=system_prompt)


def find(name: str) -> EnvFactory:
    """What makes the environment called ``name``; raises ``UserError`` when nothing does."""
    if name in ENVIRONMENTS:
        return ENVIRONMENTS[name]
    plugins = _plugins()
    if name not in plugins:
        known = ", ".join([*ENVIRONMENTS, *plugins])
        raise UserError(f"no environment {name!r}; there are: {known}")
    return _load(plugins[name])


def describe() -> list[EnvRow]:
    """One row per environment, ours first; a broken plugin is a row with its error."""
    from palestra import __version__

    ours = [
        EnvRow(name=name, origin="palestra", version=__version__, summary=_summary(factory))
        for name, factory in ENVIRONMENTS.items()
    ]
    return ours + [_row(plugin) for plugin in _plugins().values()]


def _plugins() -> dict[str, EntryPoint]:
    found = sorted(entry_points(group=GROUP), key=lambda point: point.name)
    return {point.name: point for point in found if point.name not in ENVIRONMENTS}


def _load(plugin: EntryPoint) -> EnvFactory:
    try:
        factory = plugin.load()
    except (ImportError, AttributeError) as error:
        raise UserError(f"environment plugin {plugin.name} ({plugin.value}): {error}") from error
    if not callable(factory):
        raise UserError(f"environment plugin {plugin.name} ({plugin.value}) cannot be called")
    loaded: EnvFactory = factory
    return loaded


def _row(plugin: EntryPoint) -> EnvRow:
    origin, version = (plugin.dist.name, plugin.dist.version) if plugin.dist else ("unknown", "")
    summary = error = ""
    try:
        summary = _summary(_load(plugin))
    except UserError as failure:
        error = str(failure)
    return EnvRow(name=plugin.name, origin=origin, version=version, summary=summary, error=error)


def _summary(factory: object) -> str:
    return (inspect.getdoc(factory) or "").partition("\n")[0]
