"""What test modules of a suite import as ``pytest``: marks, fixtures, ``raises`` and ``approx``.

Runs inside the box, where pytest may not be installed. It has what most suites use, with pytest's
meaning and names of parameters; whatever else a suite asks for is an ``AttributeError``, so that
its test fails instead of meaning something else.
"""

from __future__ import annotations

import enum
import inspect
import math
import re
import sys
import warnings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import ModuleType
    from typing import Any, NoReturn

FIXTURE = "__palestra_fixture__"


class Skipped(BaseException):
    """The test wants to be skipped; like pytest's, no ``Exception``, so that code lets it pass."""


class Failed(BaseException):
    """The test says that it failed, or that it is expected to."""


class Mark:
    """One mark, as ``pytest.mark.NAME(*args, **kwargs)`` makes it."""

    def __init__(self, name: str, args: tuple[Any, ...] = (), kwargs: Any = None) -> None:
        self.name, self.args, self.kwargs = name, args, kwargs or {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        only = args[0] if len(args) == 1 and not kwargs else None
        if inspect.isfunction(only) or inspect.isclass(only):
            # Not a parent's list: a class must not mark those that it derives from.
            only.pytestmark = [*vars(only).get("pytestmark", []), self]  # type: ignore[union-attr]
            return only
        return Mark(self.name, (*self.args, *args), {**self.kwargs, **kwargs})


class _Marks:
    def __getattr__(self, name: str) -> Mark:
        return Mark(name)


class Param:
    """Values of one parameter set with marks and an id of their own."""

    def __init__(self, *values: object, marks: object = (), id: str | None = None) -> None:
        self.values, self.id = values, id
        self.marks: Sequence[Any] = marks if isinstance(marks, list | tuple) else (marks,)


class Fixture:
    """What ``pytest.fixture`` says of a function."""

    def __init__(
        self,
        scope: str = "function",
        params: Sequence[Any] | None = None,
        autouse: bool = False,
        ids: Any = None,
        name: str | None = None,
    ) -> None:
        self.scope, self.autouse, self.name = scope, autouse, name
        self.params, self.ids = params, ids

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        setattr(function, FIXTURE, self)
        return function


def fixture(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """The decorator, with or without parentheses."""
    made = Fixture(**options)
    return made(function) if function is not None else made


def skip(reason: str = "", *, allow_module_level: bool = False) -> NoReturn:
    """End the test as skipped."""
    raise Skipped(reason)


def fail(reason: str = "", pytrace: bool = True) -> NoReturn:
    """End the test as failed."""
    raise Failed(reason)


def xfail(reason: str = "") -> NoReturn:
    """End the test as expected to fail, which is not a success."""
    raise Failed(f"expected failure: {reason}")


def importorskip(name: str, *_: object, **__: object) -> ModuleType:
    """The module, or the end of the test."""
    try:
        __import__(name)
    except ImportError as error:
        raise Skipped(str(error)) from error
    return sys.modules[name]


class Caught:
    """What ``raises`` gives: the exception, once there is one."""

    value: BaseException

    @property
    def type(self) -> type[BaseException]:
        """The class of the exception."""
        return type(self.value)

    def match(self, pattern: str) -> bool:
        """Fail unless the exception's text has the pattern."""
        if not re.search(pattern, str(self.value)):
            raise Failed(f"{str(self.value)!r} does not match {pattern!r}")
        return True


class _Raises:
    def __init__(self, expected: Any, match: str | None) -> None:
        self._expected, self._match, self._caught = expected, match, Caught()

    def __enter__(self) -> Caught:
        return self._caught

    def __exit__(self, kind: Any, error: BaseException | None, trace: object) -> bool:
        if error is None:
            raise Failed(f"did not raise {self._expected!r}")
        if not issubclass(kind, self._expected):
            return False
        self._caught.value = error
        return self._match is None or self._caught.match(self._match)


def raises(expected: Any, *call: Any, match: str | None = None, **kwargs: Any) -> Any:
    """A block, or a call, that must raise."""
    if not call:
        return _Raises(expected, match)
    with _Raises(expected, match) as caught:
        call[0](*call[1:], **kwargs)
    return caught


class _Warns(warnings.catch_warnings):
    def __init__(self, expected: Any, match: str | None) -> None:
        super().__init__(record=True)
        self._expected, self._pattern = expected, match or ""

    def __enter__(self) -> Any:
        self._seen = super().__enter__()
        warnings.simplefilter("always")
        return self._seen

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        good = [w for w in self._seen or () if issubclass(w.category, self._expected)]
        if error[0] is None and not any(re.search(self._pattern, str(w.message)) for w in good):
            raise Failed(f"did not warn {self._expected!r}")


def warns(expected: Any = Warning, *, match: str | None = None) -> Any:
    """A block that must warn."""
    return _Warns(expected, match)


class Approx:
    """Equal to numbers close by: ``rel`` (1e-6) of the expected one, or ``abs`` (1e-12)."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(
        self,
        expected: Any,
        rel: float | None = None,
        abs: float | None = None,
        nan_ok: bool = False,
    ) -> None:
        self.expected = expected
        self._rel, self._abs, self._nan_ok = rel, abs, nan_ok

    def __eq__(self, other: Any) -> bool:
        expected = self.expected
        if isinstance(expected, dict):
            return set(other) == set(expected) and all(
                self._close(value, other[key]) for key, value in expected.items()
            )
        if isinstance(expected, list | tuple):
            pairs = zip(expected, other, strict=False)
            return len(other) == len(expected) and all(self._close(a, b) for a, b in pairs)
        return self._close(expected, other)

    def __repr__(self) -> str:
        return f"approx({self.expected!r})"

    def _close(self, expected: Any, got: Any) -> bool:
        if expected == got:
            return True
        try:
            if math.isnan(abs(expected)):
                return self._nan_ok and math.isnan(abs(got))
            if math.isinf(abs(expected)):
                return False
            near = 1e-12 if self._abs is None else self._abs
            if self._rel is not None or self._abs is None:
                near = max(near, (1e-6 if self._rel is None else self._rel) * abs(expected))
            return bool(abs(expected - got) <= near)
        except TypeError:
            return False


# --- parameters ----------------------------------------------------------------------------------


def variants(mark: Mark) -> Iterator[tuple[str, dict[str, Any], bool, Sequence[Any]]]:
    """Id, values by name, whether they go through fixtures, and marks of each set of a mark."""
    names, values, indirect, ids = _parametrized(*mark.args, **mark.kwargs)
    sets = [value if isinstance(value, Param) else None for value in values]
    rows = [
        each.values if each else (value,) if len(names) == 1 else tuple(value)
        for each, value in zip(sets, values, strict=True)
    ]
    texts = [
        each.id if each and each.id else _row_id(ids, index, names, row)
        for index, (each, row) in enumerate(zip(sets, rows, strict=True))
    ]
    for text, each, row in zip(_unique(texts), sets, rows, strict=True):
        yield text, dict(zip(names, row, strict=True)), bool(indirect), each.marks if each else ()


def _parametrized(
    argnames: Any, argvalues: Any, indirect: Any = False, ids: Any = None, scope: Any = None
) -> tuple[list[str], list[Any], Any, Any]:
    names = argnames.split(",") if isinstance(argnames, str) else argnames
    if ids is not None and not callable(ids):
        ids = list(ids)
    return [name.strip() for name in names if name.strip()], list(argvalues), indirect, ids


def _row_id(ids: Any, index: int, names: Sequence[str], row: Sequence[Any]) -> str:
    if isinstance(ids, list) and ids[index] is not None:
        return _value_id(ids[index], "", index)
    own = ids if callable(ids) else lambda value: None
    parts = []
    for name, value in zip(names, row, strict=True):
        said = own(value)
        parts.append(_value_id(value if said is None else said, name, index))
    return "-".join(parts)


def _value_id(value: Any, name: str, index: int) -> str:
    if isinstance(value, str):
        return value.encode("unicode_escape").decode("ascii")
    if isinstance(value, bytes):
        return value.decode("ascii", "backslashreplace")
    if value is None or isinstance(value, bool | int | float | complex | enum.Enum):
        return str(value)
    if isinstance(value, re.Pattern):
        return _value_id(value.pattern, name, index)
    named = getattr(value, "__name__", None)
    return named if isinstance(named, str) else f"{name}{index}"


def _unique(texts: list[str]) -> list[str]:
    """Numbers after ids that are there more than once, as pytest numbers them."""
    seen: dict[str, int] = {}
    found = []
    for text in texts:
        if texts.count(text) > 1:
            number = seen[text] = seen.get(text, -1) + 1
            text += f"{'_' if text[-1:].isdigit() else ''}{number}"
        found.append(text)
    return found


def as_pytest(members: Mapping[str, object]) -> ModuleType:
    """The module ``pytest``, with ``members`` beside what is here."""
    made: ModuleType = type(sys)("pytest")
    skip.Exception = Skipped  # type: ignore[attr-defined]
    fail.Exception = Failed  # type: ignore[attr-defined]
    here = {f.__name__: f for f in (fixture, skip, fail, xfail, importorskip, raises, warns)}
    vars(made).update({**here, "mark": _Marks(), "param": Param, "approx": Approx, **members})
    return made
