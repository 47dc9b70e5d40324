"""Things found by name: ours, those that installed packages offer as entry points, and those of
the current folder as ``module:name``."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint, entry_points, packages_distributions, version
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from palestra.rl.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a listing; ``error`` says why a plugin cannot be used.

    Example: ``Row(name="tests_pass", origin="palestra", version="0.1.0", summary="1.0 when ...")``
    """

    name: str
    origin: str
    version: str
    summary: str
    error: str = ""


class Registry(Generic[T]):
    """Our own ``T`` by name and, behind them, the entry points of ``group``; ours cannot be
    replaced. Nothing of a plugin is imported before it is asked for by name or described.

    Example: ``Registry("reward", "palestra.rewards", {"tests_pass": tests_pass})``
    """

    def __init__(self, kind: str, group: str, ours: Mapping[str, T]) -> None:
        self.kind = kind
        self.group = group
        self.ours = ours

    def find(self, name: str) -> T:
        """What is called ``name``; raises ``UserError`` when there is nothing or it is broken."""
        if name in self.ours:
            return self.ours[name]
        plugins = self.plugins()
        if name not in plugins:
            known = ", ".join([*self.ours, *plugins])
            raise UserError(f"no {self.kind} {name!r}; there are: {known}")
        return self._load(plugins[name])

    def describe(self) -> list[Row]:
        """One row each, ours first; a broken plugin is a row with its error."""
        ours = [
            Row(name=name, origin="palestra", version=version("palestra"), summary=summary(thing))
            for name, thing in self.ours.items()
        ]
        return ours + [self._row(plugin) for plugin in self.plugins().values()]

    def plugins(self) -> dict[str, EntryPoint]:
        """Entry points of the group by name, without those that would hide one of ours."""
        found = sorted(entry_points(group=self.group), key=lambda point: point.name)
        return {point.name: point for point in found if point.name not in self.ours}

    def _load(self, plugin: EntryPoint) -> T:
        which = f"{self.kind} plugin {plugin.name} ({plugin.value})"
        try:
            loaded = plugin.load()
        except (ImportError, AttributeError) as error:
            raise UserError(f"{which}: {error}") from error
        if not callable(loaded):
            raise UserError(f"{which} cannot be called")
        return cast(T, loaded)

    def _row(self, plugin: EntryPoint) -> Row:
        whose = plugin.dist
        origin, release = (whose.name, whose.version) if whose else ("unknown", "")
        said = error = ""
        try:
            said = summary(self._load(plugin))
        except UserError as failure:
            error = str(failure)
        return Row(name=plugin.name, origin=origin, version=release, summary=said, error=error)


def import_named(kind: str, spec: str) -> Callable[..., Any]:
    """The class or function ``module:name``, of an installed package or of the current folder;
    raises ``UserError``, which calls it a ``kind``, when there is none."""
    module, _, name = spec.partition(":")
    _reach_here()
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, SyntaxError, ValueError) as error:
        raise UserError(f"{kind} {spec}: {error}") from error
    if not callable(found):
        raise UserError(f"{kind} {spec}: cannot be called")
    return cast(Callable[..., Any], found)


def in_reach(module: str) -> bool:
    """Could ``import_named`` find a module of this name? Nothing is imported."""
    _reach_here()
    top = module.partition(".")[0]
    return top.isidentifier() and PathFinder.find_spec(top) is not None


def _reach_here() -> None:
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # last: a file of the folder hides nothing that is installed


def origin(thing: object) -> str:
    """The installed package that a function or class comes from, with its version; the module's
    name where it comes from none.

    Example: ``origin(tests_pass) == "palestra 0.1.0"``
    """
    return _installed(str(getattr(thing, "__module__", "unknown")).partition(".")[0])


@cache
def _installed(package: str) -> str:
    if package == "palestra":
        return f"palestra {version('palestra')}"
    names = packages_distributions().get(package, [])
    return f"{names[0]} {version(names[0])}" if names else package


def summary(thing: object) -> str:
    """The first line of its docstring."""
    return (inspect.getdoc(thing) or "").partition("\n")[0]
