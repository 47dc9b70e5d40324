"""Fixtures of a suite: found by name from the inside out, made once per scope, taken down last."""

from __future__ import annotations

import contextlib
import inspect
import sys

from palestra.sandbox.suite_api import FIXTURE, Fixture, Mark, Param, variants
from palestra.sandbox.suite_builtin import FIXTURES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    Found = tuple[Fixture, Callable[..., Any]]

_FILE_SCOPES = ("class", "module")


def fixtures_in(space: Mapping[str, Any]) -> dict[str, Found]:
    """The fixtures that a module or class has, by the name they are asked for by."""
    found: dict[str, Found] = {}
    for name, value in space.items():
        said = vars(value).get(FIXTURE) if inspect.isfunction(value) else None
        if isinstance(said, Fixture):
            found[said.name or name] = (said, value)
    return found


_BUILTIN: dict[str, Found] = {name: (Fixture(), make) for name, make in FIXTURES.items()}


class Request:
    """What a fixture may ask of the test that it is made for."""

    def __init__(self, making: _Making, exits: contextlib.ExitStack, param: Any = None) -> None:
        self._making, self._exits = making, exits
        self.param = param
        self.function, self.instance, self.cls = making.function, making.instance, making.kind

    def getfixturevalue(self, name: str) -> Any:
        """The value of another fixture."""
        return self._making.value(name)

    def addfinalizer(self, work: Callable[[], object]) -> None:
        """Have something done when the fixture's scope ends."""
        self._exits.callback(work)


class _Scope:
    """Values that live equally long."""

    def __init__(self) -> None:
        self.values: dict[object, Any] = {}
        self.exits = contextlib.ExitStack()


class Fixtures:
    """The fixtures of a run, and the scopes that are open."""

    def __init__(self) -> None:
        self._scopes: dict[object, _Scope] = {}

    def call(
        self,
        function: Callable[..., Any],
        module: Mapping[str, Any],
        known: Sequence[Mapping[str, Found]],
        values: Mapping[str, Any],
        params: Mapping[str, Any],
        marks: Sequence[Mark],
    ) -> None:
        """Run one test, a function or a bound method, with all that it needs; raises what the test
        or a fixture raised. ``known`` are the fixtures of conftests, module and class."""
        if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
            raise TypeError("a coroutine or generator is not a test here")
        making = _Making(self, function, [_BUILTIN, *known], params)
        with making.scope("function").exits as exits:
            self._set_up(making, module, exits)
            names = [name for mark in marks if mark.name == "usefixtures" for name in mark.args]
            for name in [*_autouse(known), *names]:
                making.value(name)
            wanted = [name for name in arguments(function) if name not in values]
            function(**{**values, **{name: making.value(name) for name in wanted}})

    def close_file(self) -> None:
        """Take down what lives as long as a test file; what breaks there fails no test."""
        for key in [key for key in self._scopes if isinstance(key, tuple)]:
            with contextlib.suppress(Exception):
                self._scopes.pop(key).exits.close()

    def scope(self, name: str, kind: type | None) -> _Scope:
        """An open scope that is wider than a test."""
        key: object = name
        if name in _FILE_SCOPES:
            key = (name, kind if name == "class" else None)
        return self._scopes.setdefault(key, _Scope())

    def _set_up(
        self, making: _Making, module: Mapping[str, Any], exits: contextlib.ExitStack
    ) -> None:
        """The set-up and tear-down functions of modules, classes and tests, in xUnit's style."""
        instance, kind = making.instance, making.kind
        wide = self.scope("module", None)
        start, end = module.get("setup_module"), module.get("teardown_module")
        _once(wide, start, end, sys.modules.get(str(module.get("__name__"))))
        if kind is not None:
            start, end = getattr(kind, "setup_class", None), getattr(kind, "teardown_class", None)
            _once(self.scope("class", kind), start, end, kind)
            start = getattr(instance, "setup_method", None)
            end = getattr(instance, "teardown_method", None)
        else:
            start, end = module.get("setup_function"), module.get("teardown_function")
        if end:
            exits.callback(_with_as_many, end, making.function)
        if start:
            _with_as_many(start, making.function)

    @staticmethod
    def parametrized(
        function: Callable[..., Any], marks: Sequence[Mark], known: Sequence[Mapping[str, Found]]
    ) -> list[list[tuple[str, dict[str, Any], bool, Sequence[Any]]]]:
        """The variants that parameters of fixtures make of a test, fixture by fixture."""
        given = {n for mark in marks if mark.name == "parametrize" for n in _names(mark)}
        columns = []
        for name in _closure(function, marks, known):
            found = _innermost(name, known)
            if found and found[0].params is not None and name not in given:
                values = [v if isinstance(v, Param) else Param(v) for v in found[0].params]
                mark = Mark("parametrize", (name, values), {"indirect": True, "ids": found[0].ids})
                columns.append(list(variants(mark)))
        return columns


class _Making:
    """The fixtures of one test as they are made."""

    def __init__(
        self,
        fixtures: Fixtures,
        function: Callable[..., Any],
        known: Sequence[Mapping[str, Found]],
        params: Mapping[str, Any],
    ) -> None:
        self._fixtures, self._known, self._params = fixtures, known, params
        self.function, self.instance = function, getattr(function, "__self__", None)
        self.kind = None if self.instance is None else type(self.instance)
        self._own = _Scope()

    def scope(self, name: str) -> _Scope:
        return self._own if name == "function" else self._fixtures.scope(name, self.kind)

    def value(self, name: str, outer: int = 0) -> Any:
        """The value of a fixture; ``outer`` passes over so many that hide one of the same name."""
        if name == "request":
            return Request(self, self._own.exits)
        spaces = [space for space in reversed(self._known) if name in space]
        if outer >= len(spaces):
            raise LookupError(f"no fixture {name!r}")
        said, make = spaces[outer][name]
        if spaces[outer] is self._known[-1] and self.instance is not None:
            make = make.__get__(self.instance)
        scope = self.scope(said.scope)
        param = self._params.get(name)
        key = (spaces[outer][name][1], id(param))
        if key not in scope.values:
            scope.values[key] = self._made(make, scope, name, param, outer)
        return scope.values[key]

    def _made(
        self, make: Callable[..., Any], scope: _Scope, name: str, param: Any, outer: int
    ) -> Any:
        given = {}
        for wanted in arguments(make):
            if wanted == "request":
                given[wanted] = Request(self, scope.exits, param)
            else:
                given[wanted] = self.value(wanted, outer + 1 if wanted == name else 0)
        if not inspect.isgeneratorfunction(make):
            return make(**given)
        return scope.exits.enter_context(contextlib.contextmanager(make)(**given))


def arguments(function: Callable[..., Any]) -> list[str]:
    """Names of the arguments that are fixtures: those without defaults, but for what
    ``unittest.mock.patch`` passes."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    names = [
        name
        for name, each in inspect.signature(function).parameters.items()
        if each.kind in kinds and each.default is inspect.Parameter.empty
    ]
    patches = [p for p in getattr(function, "patchings", ()) if not p.attribute_name]
    return names[sum(repr(p.new) == "sentinel.DEFAULT" for p in patches) :]


def _closure(
    function: Callable[..., Any], marks: Sequence[Mark], known: Sequence[Mapping[str, Found]]
) -> list[str]:
    """Every fixture that a test needs, in the order in which they are first asked for."""
    names = [*_autouse(known)]
    names += [name for mark in marks if mark.name == "usefixtures" for name in mark.args]
    names += list(inspect.signature(function).parameters)
    seen: list[str] = []
    while names:
        name = names.pop(0)
        found = _innermost(name, known)
        if name not in seen and found is not None:
            seen.append(name)
            names += list(inspect.signature(found[1]).parameters)
    return seen


def _innermost(name: str, known: Sequence[Mapping[str, Found]]) -> Found | None:
    return next((space[name] for space in reversed(known) if name in space), None)


def _autouse(known: Sequence[Mapping[str, Found]]) -> list[str]:
    return [name for space in known for name, (said, _) in space.items() if said.autouse]


def _names(mark: Mark) -> list[str]:
    names = mark.args[0] if mark.args else mark.kwargs["argnames"]
    return [n.strip() for n in names.split(",")] if isinstance(names, str) else list(names)


def _once(scope: _Scope, start: Any, end: Any, argument: object) -> None:
    if (start, end) not in scope.values:
        scope.values[start, end] = None
        if end:
            scope.exits.callback(_with_as_many, end, argument)
        if start:
            _with_as_many(start, argument)


def _with_as_many(function: Callable[..., Any], argument: object) -> None:
    """Call with the argument where one is wanted: both forms are allowed."""
    function(*([argument] if inspect.signature(function).parameters else []))
