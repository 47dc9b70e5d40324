"""Runs tests of a pytest or unittest suite beside the code they test, by ids fixed in advance.

Runs inside the box, in a process of its own, and is ``pytest`` to the test modules: functions,
classes, fixtures, parameters, marks, ``unittest`` cases. Tests are not collected but looked up, no
settings file or plugin is read, and only a plain success is reported as one.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import inspect
import itertools
import os
import sys
import unittest

from palestra.sandbox.answers import describe
from palestra.sandbox.recorder import recorder
from palestra.sandbox.suite_api import Failed, Mark, Skipped, as_pytest, variants
from palestra.sandbox.suite_builtin import TYPES
from palestra.sandbox.suite_canary import canary
from palestra.sandbox.suite_fixtures import Fixtures, Request, fixtures_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import ModuleType
    from typing import Any

    Emit = Callable[[int, bool, bytes], None]


class Suite:
    """The tests ``wanted`` (index and id) of one candidate, whose ``files`` and the task's tests
    (``texts``) over them are laid out in ``folder``. An id without a name after ``::`` means the
    canary. ``django`` is the script of these tests that runs Django's tests, if they are such.
    """

    def __init__(
        self,
        folder: str,
        files: Mapping[str, bytes],
        texts: Mapping[str, bytes],
        wanted: Sequence[tuple[int, str]],
        emit: Emit,
        django: str = "",
    ) -> None:
        self._folder, self._wanted, self._emit = folder, wanted, emit
        self._django = django
        self._paths = {f"{folder}/{path}" for path in [*files, *texts]}
        settings = {path: data for path, data in files.items() if path.endswith("conftest.py")}
        # From memory: what lies on the disk may be changed by the candidate.
        self._texts = {f"{folder}/{path}": data for path, data in {**settings, **texts}.items()}
        self._modules: dict[str, ModuleType] = {}
        self._fixtures = Fixtures()

    def run(self) -> None:
        """Report every test, in the order in which they were asked for."""
        sys.modules["pytest"] = as_pytest({**TYPES, "FixtureRequest": Request})
        sys.meta_path.insert(0, _Finder(self._texts))
        try:
            self._make_ready()
        except BaseException as error:  # noqa: BLE001 - settings may raise anything
            for index, _ in self._wanted:
                self._emit(index, False, describe(error))
            return
        for path, group in itertools.groupby(self._wanted, lambda item: item[1].split("::")[0]):
            for index, name in group:
                self._emit(index, *self._outcome(path, name.partition("::")[2]))
            self._fixtures.close_file()

    def _make_ready(self) -> None:
        if self._django:
            from palestra.sandbox.suite_django import make_ready

            text = self._texts[f"{self._folder}/{self._django}"].decode()
            paths = [name.partition("::")[0] for _, name in self._wanted]
            make_ready(self._folder, self._django, text, paths, self._load)

    def _outcome(self, path: str, name: str) -> tuple[bool, bytes]:
        try:
            if not name:
                with contextlib.suppress(BaseException):
                    self._load(path)  # so that what the candidate does on import is done
                return canary(self._function, _unit)
            around = [vars(self._load(conftest)) for conftest in self._conftests(path)]
            module = self._load(path)
            base = name.partition("[")[0]
            *classes, function = base.split("::")
            holder: Any = module
            for part in classes:
                holder = getattr(holder, part)
            if isinstance(holder, type) and issubclass(holder, unittest.TestCase):
                return _unit(holder(name.split("::")[-1]))
            kind = holder if isinstance(holder, type) else None
            own = {key: getattr(kind, key) for key in dir(kind)} if kind else {}
            self._function([*around, vars(module), own], kind, function, name[len(base) :])
        except BaseException as error:  # noqa: BLE001 - tests and candidates may raise anything
            return False, describe(error)
        return True, b""

    # --- modules ----------------------------------------------------------------------------------

    def _load(self, path: str) -> ModuleType:
        """A module of the suite, from memory where it is one of the task's test files."""
        if path not in self._modules:
            full = f"{self._folder}/{path}"
            root = os.path.dirname(full)  # noqa: PTH120
            while f"{root}/__init__.py" in self._paths and root != self._folder:
                root = os.path.dirname(root)  # noqa: PTH120
            if root not in sys.path:
                sys.path.insert(0, root)
            name = full[len(root) + 1 :].removesuffix(".py").replace("/", ".")
            if name.endswith("conftest"):
                name = f"{name}_{len(self._modules)}"  # there may be one in every folder
            elif "." in name:
                __import__(name.rpartition(".")[0])
            spec = _spec(name, full, self._texts.get(full))
            module = sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)  # type: ignore[union-attr]
            self._modules[path] = module
        return self._modules[path]

    def _conftests(self, path: str) -> list[str]:
        """The conftests of a test file, from the outside in."""
        folders = path.split("/")[:-1]
        paths = ["/".join([*folders[:n], "conftest.py"]) for n in range(len(folders) + 1)]
        return [each for each in paths if f"{self._folder}/{each}" in self._texts]

    # --- functions -------------------------------------------------------------------------------

    def _function(
        self, spaces: Sequence[Mapping[str, Any]], kind: type | None, name: str, chosen: str
    ) -> None:
        """Run one variant of a test, or all whose text begins so where ``chosen`` has no end (some
        sets of tasks cut ids at a blank); returns if it passed."""
        cut = chosen.startswith("[") and not chosen.endswith("]")
        ran = False
        function = getattr(kind, name) if kind else spaces[-2][name]
        marks = [*_marks(function), *_class_marks(kind), *_marks_of(spaces[-2])]
        known = [fixtures_in(space) for space in spaces]
        for text, values, through, more in _variants(function, marks, known):
            label = f"[{text}]" if text else ""
            if chosen == label or (cut and label.startswith(chosen)):
                _refuse([*marks, *more], getattr(function, "__globals__", {}))
                instance = kind() if kind else None
                bound = getattr(instance, name) if kind else function
                self._fixtures.call(bound, spaces[-2], known, values, through, marks)
                ran = True
        if not ran:
            raise LookupError(f"no test {name}{chosen}")


def _unit(test: unittest.TestCase) -> tuple[bool, bytes]:
    ended: list[tuple[bool, bytes]] = []
    unittest.TestSuite([test]).run(recorder(lambda test, good, text: ended.append((good, text))))
    return ended[0] if ended else (False, b"its class or module could not be set up")


def _variants(
    function: Callable[..., Any], marks: Sequence[Mark], known: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, dict[str, Any], dict[str, Any], list[Mark]]]:
    """Id, arguments, parameters of fixtures and marks of each variant of a test."""
    columns = Fixtures.parametrized(function, marks, known)
    columns += [list(variants(mark)) for mark in marks if mark.name == "parametrize"]
    for row in itertools.product(*columns):
        direct: dict[str, Any] = {}
        through: dict[str, Any] = {}
        for _, values, indirect, _ in row:
            (through if indirect else direct).update(values)
        more = [mark for *_, marks in row for mark in marks]
        yield "-".join(text for text, *_ in row), direct, through, more


def _refuse(marks: Sequence[Mark], scope: Mapping[str, Any]) -> None:
    """Marks that say that a success is none, or that the test is not to be run."""
    for mark in marks:
        conditions = mark.args if mark.name in ("skipif", "xfail") else ()
        held = any(_true(condition, scope) for condition in conditions)
        if mark.name == "skip" or (mark.name == "skipif" and held):
            raise Skipped(str(mark.kwargs.get("reason", "")))
        if mark.name == "xfail" and (held or not conditions):
            raise Failed("expected failure")


def _true(condition: object, scope: Mapping[str, Any]) -> bool:
    if isinstance(condition, str):
        return bool(eval(condition, {"os": os, "sys": sys, **scope}))
    return bool(condition)


def _marks(target: object) -> list[Mark]:
    return _marks_of(getattr(target, "__dict__", {}))


def _marks_of(scope: Mapping[str, Any]) -> list[Mark]:
    found = scope.get("pytestmark", [])
    return list(found) if isinstance(found, list | tuple) else [found]


def _class_marks(kind: type | None) -> list[Mark]:
    return [mark for parent in inspect.getmro(kind) for mark in _marks(parent)] if kind else []


class _Loader(importlib.machinery.SourceFileLoader):
    """Source from memory: what lies on the disk may have been changed by the candidate."""

    def __init__(self, name: str, path: str, text: bytes) -> None:
        super().__init__(name, path)
        self._text = text

    def get_data(self, path: str) -> bytes:
        return self._text

    def path_stats(self, path: str) -> Any:
        raise OSError("no bytecode")


class _Finder:
    """Finds the task's test files, whoever imports them."""

    def __init__(self, texts: Mapping[str, bytes]) -> None:
        self._texts = texts

    def find_spec(self, name: str, path: Any = None, target: object = None) -> Any:
        for folder in path or sys.path:
            stem = f"{folder}/{name.rpartition('.')[2]}"
            for file in (f"{stem}/__init__.py", f"{stem}.py"):
                if file in self._texts:
                    return _spec(name, file, self._texts[file])
        return None


def _spec(name: str, path: str, text: bytes | None) -> importlib.machinery.ModuleSpec:
    loader = None if text is None else _Loader(name, path, text)
    inside = [os.path.dirname(path)] if path.endswith("/__init__.py") else None  # noqa: PTH120
    spec = importlib.util.spec_from_file_location(
        name, path, loader=loader, submodule_search_locations=inside
    )
    if spec is None:
        raise ImportError(f"{path} cannot be loaded")
    return spec
