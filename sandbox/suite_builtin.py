"""The fixtures that pytest brings along, as suites use them most: inside the box, by us.

``logging`` and ``tempfile`` are imported where they are used: they bring threading and random
along, which double what every fork of a warm box costs.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterator
    from typing import Any

_ABSENT = object()


class MonkeyPatch:
    """Changes of objects, dictionaries, the environment and paths, all taken back by ``undo``."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], object]] = []

    @classmethod
    @contextlib.contextmanager
    def context(cls) -> Iterator[MonkeyPatch]:
        """Changes for the length of a block."""
        made = cls()
        try:
            yield made
        finally:
            made.undo()

    def setattr(self, target: Any, name: Any, value: Any = _ABSENT, raising: bool = True) -> None:
        """``setattr(object, name, value)`` or ``setattr("module.name", value)``."""
        if value is _ABSENT:
            target, name, value = (*_found(target), name)
        if raising and not hasattr(target, name):
            raise AttributeError(f"{target!r} has no attribute {name!r}")
        self._remember(target, name)
        setattr(target, name, value)

    def delattr(self, target: Any, name: Any = _ABSENT, raising: bool = True) -> None:
        """``delattr(object, name)`` or ``delattr("module.name")``."""
        if name is _ABSENT:
            target, name = _found(target)
        if not hasattr(target, name) and not raising:
            return
        self._remember(target, name)
        delattr(target, name)

    def setitem(self, target: Any, key: Any, value: Any) -> None:
        """``target[key] = value``."""
        old = target.get(key, _ABSENT)
        self._undo.append(lambda: _put_back(target, key, old))
        target[key] = value

    def delitem(self, target: Any, key: Any, raising: bool = True) -> None:
        """``del target[key]``."""
        if key not in target and not raising:
            return
        old = target[key]
        self._undo.append(lambda: _put_back(target, key, old))
        del target[key]

    def setenv(self, name: str, value: Any, prepend: str | None = None) -> None:
        """Set a variable, or put a value and a separator before what it holds."""
        if prepend and name in os.environ:
            value = f"{value}{prepend}{os.environ[name]}"
        self.setitem(os.environ, name, str(value))

    def delenv(self, name: str, raising: bool = True) -> None:
        """Remove a variable."""
        self.delitem(os.environ, name, raising)

    def syspath_prepend(self, path: Any) -> None:
        """Look for modules in ``path`` first."""
        old = list(sys.path)
        self._undo.append(lambda: sys.path.__setitem__(slice(None), old))
        sys.path.insert(0, str(path))
        importlib.invalidate_caches()

    def chdir(self, path: Any) -> None:
        """Go into another folder."""
        old = Path.cwd()
        self._undo.append(lambda: os.chdir(old))
        os.chdir(path)

    def undo(self) -> None:
        """Take everything back, the last change first."""
        while self._undo:
            self._undo.pop()()

    def _remember(self, target: Any, name: str) -> None:
        # What a class holds itself, so that a static method comes back as one.
        own = vars(target).get(name, _ABSENT) if isinstance(target, type) else _ABSENT
        old = getattr(target, name, _ABSENT) if own is _ABSENT else own
        if old is _ABSENT or (isinstance(target, type) and own is _ABSENT):
            self._undo.append(lambda: delattr(target, name))
        else:
            self._undo.append(lambda: setattr(target, name, old))


def _found(path: str) -> tuple[Any, str]:
    """The object that ``a.b.c`` is an attribute of, and the attribute's name."""
    parent, _, name = path.rpartition(".")
    parts = parent.split(".")
    for size in range(len(parts), 0, -1):
        with contextlib.suppress(ImportError):
            target: Any = importlib.import_module(".".join(parts[:size]))
            for part in parts[size:]:
                target = getattr(target, part)
            return target, name
    raise ImportError(f"no module in {path!r}")


def _put_back(target: Any, key: Any, old: Any) -> None:
    if old is _ABSENT:
        target.pop(key, None)
    else:
        target[key] = old


class Captured:
    """The two texts of ``capsys.readouterr()``."""

    def __init__(self, out: str, err: str) -> None:
        self.out, self.err = out, err

    def __iter__(self) -> Iterator[str]:
        return iter((self.out, self.err))


class CaptureFixture:
    """Standard output and error as texts."""

    def __init__(self) -> None:
        self.out, self.err = io.StringIO(), io.StringIO()

    def __class_getitem__(cls, item: object) -> type[CaptureFixture]:
        return cls

    def readouterr(self) -> Captured:
        """What was written since the last time."""
        texts = [stream.getvalue() for stream in (self.out, self.err)]
        for stream in (self.out, self.err):
            stream.seek(0)
            stream.truncate()
        return Captured(*texts)


class LogCaptureFixture:
    """Log records as ``handler`` gets them."""

    def __init__(self, handler: logging.Handler) -> None:
        self.records: list[logging.LogRecord] = []
        self.handler = handler
        handler.emit = self.records.append  # type: ignore[assignment, method-assign]

    @property
    def messages(self) -> list[str]:
        """The texts of the records."""
        return [record.getMessage() for record in self.records]

    @property
    def text(self) -> str:
        """All texts, a line each."""
        return "".join(f"{r.levelname} {r.name}: {r.getMessage()}\n" for r in self.records)

    @property
    def record_tuples(self) -> list[tuple[str, int, str]]:
        """Logger, level and text of each record."""
        return [(r.name, r.levelno, r.getMessage()) for r in self.records]

    def clear(self) -> None:
        """Forget the records."""
        self.records.clear()

    def set_level(self, level: int | str, logger: str | None = None) -> None:
        """Record from ``level`` on, until the test ends."""
        import logging

        logging.getLogger(logger).setLevel(level)

    @contextlib.contextmanager
    def at_level(self, level: int | str, logger: str | None = None) -> Iterator[None]:
        """Record from ``level`` on, for the length of a block."""
        import logging

        target = logging.getLogger(logger)
        old = target.level
        target.setLevel(level)
        try:
            yield
        finally:
            target.setLevel(old)


def monkeypatch() -> Iterator[MonkeyPatch]:
    """See ``MonkeyPatch``."""
    with MonkeyPatch.context() as made:
        yield made


def tmp_path() -> Path:
    """A folder of the test's own."""
    import tempfile

    return Path(tempfile.mkdtemp(prefix="test-"))


def capsys() -> Iterator[CaptureFixture]:
    """See ``CaptureFixture``."""
    made = CaptureFixture()
    with contextlib.redirect_stdout(made.out), contextlib.redirect_stderr(made.err):
        yield made


def caplog() -> Iterator[LogCaptureFixture]:
    """See ``LogCaptureFixture``."""
    import logging

    made, root = LogCaptureFixture(logging.Handler()), logging.getLogger()
    level = root.level
    root.addHandler(made.handler)
    try:
        yield made
    finally:
        root.removeHandler(made.handler)
        root.setLevel(level)


FIXTURES = {f.__name__: f for f in (monkeypatch, tmp_path, capsys, caplog)}
TYPES: dict[str, Any] = {
    "MonkeyPatch": MonkeyPatch,
    "CaptureFixture": CaptureFixture,
    "LogCaptureFixture": LogCaptureFixture,
}
