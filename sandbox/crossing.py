"""How objects get from one process to another: plain data by value, standard types rebuilt, and all
else by handle, as a number that stands for the object.

Runs inside the box: standard library only.
"""

from __future__ import annotations

import sys
import types

from palestra.sandbox.proxy import Proxy, handle_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from palestra.sandbox.peer import Peer

# Standard types that cross by value: how they are rebuilt on the other side.
_REBUILT: dict[str, Callable[..., tuple[object, ...]]] = {
    "builtins.range": lambda v: (v.start, v.stop, v.step),
    "builtins.slice": lambda v: (v.start, v.stop, v.step),
    "collections.Counter": lambda v: (dict(v),),
    "collections.OrderedDict": lambda v: (list(v.items()),),
    "collections.defaultdict": lambda v: (None, dict(v)),
    "collections.deque": lambda v: (list(v), v.maxlen),
    "datetime.date": lambda v: (v.year, v.month, v.day),
    "datetime.datetime": lambda v: (
        *(v.year, v.month, v.day, v.hour, v.minute, v.second, v.microsecond),
        v.tzinfo,
    ),
    "datetime.time": lambda v: (v.hour, v.minute, v.second, v.microsecond, v.tzinfo),
    "datetime.timedelta": lambda v: (v.days, v.seconds, v.microseconds),
    "datetime.timezone": lambda v: (v.utcoffset(None),),
    "decimal.Decimal": lambda v: (str(v),),
    "fractions.Fraction": lambda v: (v.numerator, v.denominator),
}
_CONSTANTS = {"Ellipsis": Ellipsis, "NotImplemented": NotImplemented}
_DATA: tuple[Callable[..., object], ...] = (
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    bytearray,
    list,
    tuple,
    set,
    frozenset,
    dict,
)
_VIEWS: tuple[type, ...] = (type({}.keys()), type({}.items()))


def plain_of(value: Any) -> tuple[object, ...]:
    """``(data,)`` for an instance of a subclass of a builtin data type, else ``()``."""
    if type(value) in _VIEWS:
        return (set(value),)
    for kind in _DATA:
        if isinstance(value, kind):  # type: ignore[arg-type]
            if kind is dict:
                return ({key: dict.__getitem__(value, key) for key in dict.__iter__(value)},)
            return (kind(value),)
    return ()


class Handles:
    """The objects of one end that the other knows by number, and those of the other known here."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._objects: list[object] = []
        self._handles: dict[int, int] = {}
        self._proxies: dict[int, Proxy] = {}
        self._errors: dict[int, type[BaseException]] = {}

    def export(self, value: object) -> object:
        """What ``encode`` writes in the place of an object that is no plain data. Raises
        ``TypeError`` for one that must not cross."""
        if type(value) is Proxy:
            return ("yours", handle_of(value))
        if isinstance(value, type):
            return self._export_class(value)
        if isinstance(value, BaseException):
            return ("error", type(value), _carried(value), _text(value), Held(value))
        if type(value) is Held:
            return ("mine", self._handle(value.value))
        for name, constant in _CONSTANTS.items():
            if value is constant:
                return ("constant", name)
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        if kind in _REBUILT:
            return ("new", kind, _REBUILT[kind](value))
        if self._peer.trusted:
            standard = _standard_name(value)
            if standard:
                return ("standard", *standard)
            if isinstance(value, types.ModuleType):
                raise TypeError("a module of the test")
        return ("mine", self._handle(value))

    def _export_class(self, kind: type) -> object:
        if kind.__module__ == "builtins":
            return ("type", kind.__name__)
        if "_palestra_handle" in kind.__dict__:
            return ("yours", kind.__dict__["_palestra_handle"])
        if self._peer.trusted and _standard_name(kind):
            return ("standard", *_standard_name(kind))
        if issubclass(kind, BaseException):
            return ("errors", self._handle(kind), kind.__name__, kind.__bases__)
        return ("mine", self._handle(kind))

    def _handle(self, value: object) -> int:
        # The list keeps the object alive, so that its id stays its own.
        known = self._handles.setdefault(id(value), len(self._objects))
        if known == len(self._objects):
            self._objects.append(value)
        return known

    def restore(self, data: object) -> object:
        """What the other side exported; raises ``ValueError``, ``LookupError`` and what making the
        object raises, for the other side may be hostile."""
        if type(data) is not tuple or len(data) < 2:
            raise ValueError("malformed handle")
        what, first = data[0], data[1]
        if what == "mine" and type(first) is int:
            return self._proxies.setdefault(first, Proxy(self._peer, first))
        if what == "yours" and type(first) is int and 0 <= first < len(self._objects):
            return self._objects[first]
        if what == "type" and isinstance(getattr(_builtins(), first), type):
            return getattr(_builtins(), first)
        if what == "constant":
            return _CONSTANTS[first]
        if what == "new" and first in _REBUILT:
            module, name = first.split(".")
            return getattr(__import__(module), name)(*data[2])
        if what == "errors":
            return self._error_class(*data[1:])
        if what == "error":
            return self._error(*data[1:])
        if what == "standard" and not self._peer.trusted:
            return _standard(first, data[2])
        raise ValueError("malformed handle")

    def _error_class(self, handle: int, name: str, bases: tuple[type, ...]) -> type[BaseException]:
        if handle not in self._errors:
            parents = tuple(b for b in bases if _raisable(b))
            body = {
                "_palestra_handle": handle,
                "__module__": "candidate",
                "__str__": lambda error: error.__dict__.get("_palestra_text") or _own_text(error),
                "__getattr__": _ask_remote,
            }
            self._errors[handle] = type(str(name), parents or (Exception,), body)
        return self._errors[handle]

    def _error(
        self, kind: type, args: tuple[object, ...], text: str, remote: object
    ) -> BaseException:
        if not _raisable(kind):
            raise ValueError("malformed error")
        try:
            error: BaseException = kind(*args)
        except (TypeError, ValueError):
            error = kind.__new__(kind)  # type: ignore[call-overload]
            error.args = args
        if "_palestra_handle" in kind.__dict__:
            error.__dict__["_palestra_text"] = text
            error.__dict__["_palestra_remote"] = remote
        return error


class Held:
    """Marks a value that must cross by handle although it could cross by value."""

    def __init__(self, value: object) -> None:
        self.value = value


def _raisable(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseException)


def _ask_remote(error: BaseException, name: str) -> object:
    remote = error.__dict__.get("_palestra_remote")
    if remote is None or name.startswith("__"):
        raise AttributeError(name)
    return getattr(remote, name)


def _own_text(error: BaseException) -> str:
    return "" if not error.args else str(error.args[0] if len(error.args) == 1 else error.args)


def _text(error: BaseException) -> str:
    try:
        return str(str(error))
    except Exception:  # noqa: BLE001 - the candidate's own __str__
        return "?"


def _carried(error: BaseException) -> tuple[object, ...]:
    return error.args if type(error.args) is tuple else ()


def _builtins() -> types.ModuleType:
    return sys.modules["builtins"]


def _standard_name(value: object) -> tuple[str, str] | tuple[()]:
    """Module and name of a function or class of the standard library."""
    owner = value.__objclass__ if isinstance(value, types.MethodDescriptorType) else value
    module, name = getattr(owner, "__module__", None), getattr(value, "__qualname__", None)
    if type(module) is not str or type(name) is not str:
        return ()
    if module.split(".")[0] not in sys.stdlib_module_names or module == "__main__":
        return ()
    try:
        same = _standard(module, name) is value
    except (ImportError, AttributeError):
        return ()
    return (module, name) if same else ()


def _standard(module: str, name: str) -> object:
    __import__(module)
    value: object = sys.modules[module]
    for part in name.split("."):
        value = getattr(value, part)
    return value
