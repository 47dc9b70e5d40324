"""Runs test code in its own process, with the candidate's modules replaced by proxies.

Runs inside the box. Test modules import through ``Tester.import_``: the candidate's modules become
proxies for test code only, so a candidate named like a standard module shadows it for nobody else.
"""

from __future__ import annotations

import builtins
import os
import sys

from palestra.sandbox.answers import describe
from palestra.sandbox.peer import Peer
from palestra.sandbox.proxy import Proxy, plain_value
from palestra.sandbox.recorder import recorder

TYPE_CHECKING = False
if TYPE_CHECKING:
    import unittest
    from collections.abc import Callable, Iterable, Mapping
    from types import ModuleType
    from typing import TypedDict

    class Secret(TypedDict):
        """The tests of one job: ``(index, module, names, code)``, ``(index, id)``, their files."""

        scripts: list[tuple[int, str, tuple[str, ...], str]]
        units: list[tuple[int, str]]
        files: dict[str, str]

    Emit = Callable[[int, bool, bytes], None]


class Tester:
    """The tests of one job against one candidate process."""

    def __init__(
        self, secret: object, candidate: Iterable[str], reader: int, writer: int, emit: Emit
    ) -> None:
        self._secret: Secret = secret  # type: ignore[assignment]
        self._emit = emit
        self._peer = Peer(reader, writer, trusted=True)
        self._texts = {module_name(p): (p, t) for p, t in self._secret["files"].items()}
        names = {module_name(path) for path in candidate}
        names |= {script[1] for script in self._secret["scripts"]}
        self._candidate = {part for name in names for part in prefixes(name)} - {""}
        self._loaded: dict[str, object] = {}
        self._failed: dict[str, BaseException] = {}
        self._builtins = {**vars(builtins), "__import__": self.import_}
        self._peer.test_modules |= {*self._texts, "__check__"}

    def run(self, pending: list[int]) -> None:
        """Emit a result for each pending check, in order; ends early when the candidate is lost."""
        sys.dont_write_bytecode = True
        for index, module, names, code in self._secret["scripts"]:
            if index in pending:
                self._report(index, self._script, module, names, code)
        units = [unit for unit in self._secret["units"] if unit[0] in pending]
        if units:
            self._units(units)

    def import_(
        self,
        name: str,
        scope: Mapping[str, object] | None = None,
        local: Mapping[str, object] | None = None,
        wanted: tuple[str, ...] | None = (),
        level: int = 0,
    ) -> object:
        """``__import__`` of test code."""
        if level or not self._known(name):
            return __import__(name, scope, local, wanted or (), level)
        module = self._load(name)
        for item in wanted or ():
            if self._known(f"{name}.{item}"):
                self._load(f"{name}.{item}")
        return module if wanted else self._load(name.split(".")[0])

    def _known(self, name: str) -> bool:
        return name in self._texts or name in self._candidate

    def _load(self, name: str) -> object:
        if name in self._failed:
            raise self._failed[name]
        if name not in self._loaded:
            try:
                self._load_fresh(name)
            except BaseException as error:
                self._loaded.pop(name, None)
                self._failed[name] = error
                raise
        return self._loaded[name]

    def _load_fresh(self, name: str) -> None:
        if name not in self._texts:
            self._loaded[name] = self._peer.ask("import", name)
            return
        path, text = self._texts[name]
        module: ModuleType = type(sys)(name)
        vars(module).update({"__builtins__": self._builtins, "__file__": path})
        self._loaded[name] = module
        if name.split(".")[0] not in sys.stdlib_module_names:
            sys.modules[name] = module
        exec(compile(text, path, "exec", dont_inherit=True), vars(module))

    def _report(self, index: int, test: Callable[..., None], *args: object) -> None:
        text, passed = b"", False
        try:
            test(*args)
            passed = True
        except BaseException as error:  # noqa: BLE001 - a test may raise anything
            text = describe(error)
        self._stop_if_lost()
        self._emit(index, passed, text)

    def _stop_if_lost(self) -> None:
        """Our end without a word makes the supervisor fail the current check, and try the next."""
        if self._peer.lost:
            os._exit(0)

    def _script(self, module: str, names: tuple[str, ...], code: str) -> None:
        scope: dict[str, object] = {"__name__": "__check__", "__builtins__": self._builtins}
        candidate = self._load(module)
        for name in names:
            try:
                scope[name] = getattr(candidate, name)
            except AttributeError:
                continue
        self._peer.strict = True
        try:
            exec(compile(code, "<check>", "exec", dont_inherit=True), scope)
        finally:
            self._peer.strict = False

    def _units(self, units: list[tuple[int, str]]) -> None:
        import unittest

        suite, indices = unittest.TestSuite(), {}
        for index, name in units:
            try:
                module, case, method = name.rsplit(".", 2)
                test = getattr(self._load(module), case)(method)
            except BaseException as error:  # noqa: BLE001 - importing tests runs the candidate
                self._stop_if_lost()
                self._emit(index, False, describe(error))
                continue
            suite.addTest(test)
            indices[id(test)] = index

        def done(test: unittest.TestCase, good: bool, text: bytes) -> None:
            self._stop_if_lost()
            if id(test) in indices:
                self._emit(indices.pop(id(test)), good, text)

        result = recorder(done)
        # They subtract, and with that would tell the candidate what is expected.
        for name in ("assertAlmostEqual", "assertNotAlmostEqual"):
            setattr(unittest.TestCase, name, _on_plain(getattr(unittest.TestCase, name)))
        suite.run(result)
        self._stop_if_lost()
        for index in indices.values():
            self._emit(index, False, b"its class or module could not be set up")


def _on_plain(method: Callable[..., None]) -> Callable[..., None]:
    """An assertion whose first two operands are plain data, or both the candidate's objects."""

    def checked(
        case: unittest.TestCase, first: object, second: object, *rest: object, **options: object
    ) -> None:
        both = [first, second]
        if sum(isinstance(value, Proxy) for value in both) == 1:
            both = [_plain(case, value) for value in both]
        method(case, *both, *rest, **options)

    return checked


def _plain(case: unittest.TestCase, value: object) -> object:
    if not isinstance(value, Proxy):
        return value
    found, plain = plain_value(value)
    if not found:
        case.fail("the candidate's value is not plain data")
    return plain


def module_name(path: str) -> str:
    """``a/b.py`` and ``src/a/b.py`` to ``a.b``."""
    return path.removeprefix("src/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def prefixes(name: str) -> list[str]:
    """``a.b.c`` to itself and the packages it lies in."""
    parts = name.split(".")
    return [".".join(parts[: size + 1]) for size in range(len(parts))]
