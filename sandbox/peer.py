"""Objects of one process used from another: what lets tests run outside the candidate.

Plain data crosses by value, everything else by handle. The tester's side is ``trusted`` and keeps
two rules: a candidate's object never decides a comparison with the test's own data (it is asked for
its plain value instead), and the candidate may do with the test's objects only what tests hand
objects over for: calling, iterating, reading public attributes.

Runs inside the box, so it imports only the standard library and the codec.
"""

from __future__ import annotations

import _operator as operator
import marshal
import os
import sys
import types
from _thread import RLock

from palestra.sandbox.codec import decode, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

MAX_MESSAGE = 16 << 20

_set = object.__setattr__
_get = object.__getattribute__


class Lost(BaseException):
    """The other process is gone or talks nonsense; not an ``Exception``, so tests let it pass."""


class Proxy:
    """An object that lives in the other process."""

    __slots__ = ("_palestra_handle", "_palestra_peer", "_palestra_tainted")

    def __init__(self, peer: Peer, handle: int, tainted: bool = False) -> None:
        _set(self, "_palestra_peer", peer)
        _set(self, "_palestra_handle", handle)
        _set(self, "_palestra_tainted", tainted)

    def __getattr__(self, name: str) -> object:
        return _peer(self).ask("get", self, name)

    def __setattr__(self, name: str, value: object) -> None:
        _peer(self).ask("set", self, name, value)

    def __delattr__(self, name: str) -> None:
        _peer(self).ask("del", self, name)

    def __call__(self, *args: object, **kwargs: object) -> object:
        return _peer(self).ask("call", self, args, kwargs)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        peer = _peer(self)
        if isinstance(other, Proxy) or not peer.trusted:
            return peer.ask("op", "eq", (self, other)) is True
        found, value = plain_value(self)
        return bool(value == other) if found else NotImplemented

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(_peer(self).ask("op", "hash", (self,)))

    def __instancecheck__(self, value: object) -> bool:
        return _peer(self).ask("op", "isinstance", (value, self)) is True

    def __subclasscheck__(self, value: object) -> bool:
        return _peer(self).ask("op", "issubclass", (value, self)) is True

    def __contains__(self, item: object) -> bool:
        if _peer(self).trusted and not isinstance(item, Proxy):
            found, value = plain_value(self)
            if found:
                return item in value  # type: ignore[operator]
            if _peer(self).strict:
                return any(item == other for other in iter(self))  # type: ignore[call-overload]
        return _peer(self).ask("op", "contains", (self, item)) is True

    def __pow__(self, other: object, modulo: object = None) -> object:
        return _binary("pow", self, other)

    def __exit__(self, *error: object) -> object:
        return _peer(self).ask("op", "exit", (self, *error[:2], None))

    def __mro_entries__(self, bases: object) -> tuple[type, ...]:
        raise TypeError("a test cannot subclass a class of the candidate")


def _peer(proxy: Proxy) -> Peer:
    peer: Peer = _get(proxy, "_palestra_peer")
    return peer


def plain_value(proxy: Proxy) -> tuple[bool, object]:
    """Whether the object is plain data in disguise (a subclass of list, ...), and that data."""
    if _get(proxy, "_palestra_tainted"):
        return False, None
    answer = _peer(proxy).ask("plain", proxy)
    if type(answer) is tuple and len(answer) == 1:
        return True, answer[0]
    return False, None


def _binary(name: str, left: object, right: object) -> object:
    """An operator between two values of which at least one is the candidate's."""
    proxies = [value for value in (left, right) if isinstance(value, Proxy)]
    peer = _peer(proxies[0])
    tainted = any(_get(proxy, "_palestra_tainted") for proxy in proxies)
    if peer.trusted and len(proxies) == 1 and not tainted:
        found, value = plain_value(proxies[0])
        if found:
            both = (value, right) if proxies[0] is left else (left, value)
            return OPERATIONS[name](*both)
        if peer.strict:
            raise TypeError("the candidate's value is not plain data")
        tainted = name in _TAINTING
    return _untainted_only(peer.ask("op", name, (left, right)), peer, tainted)


def _untainted_only(value: object, peer: Peer, tainted: bool) -> object:
    """Taint: the candidate saw what may be the expected value, so it may not name a number now.

    Without it ``abs(f(2) - 12.57) < 0.01`` passes for an object whose ``__sub__`` returns 0.
    """
    if not tainted or not peer.trusted:
        return value
    if not isinstance(value, Proxy):
        raise TypeError("the candidate's operator answered a test's value with plain data")
    return Proxy(peer, _get(value, "_palestra_handle"), tainted=True)


def _unary(name: str) -> Callable[..., object]:
    def method(self: Proxy, *rest: object) -> object:
        value = _peer(self).ask("op", name, (self, *rest))
        if name in _TEXT:
            return value
        return _untainted_only(value, _peer(self), _get(self, "_palestra_tainted"))

    return method


def _left(name: str) -> Callable[[Proxy, object], object]:
    return lambda self, other: _binary(name, self, other)


def _right(name: str) -> Callable[[Proxy, object], object]:
    return lambda self, other: _binary(name, other, self)


def _order(name: str) -> Callable[[Proxy, object], object]:
    def method(self: Proxy, other: object) -> object:
        peer = _peer(self)
        if isinstance(other, Proxy) or not peer.trusted:
            return peer.ask("op", name, (self, other))
        found, value = plain_value(self)
        return OPERATIONS[name](value, other) if found else NotImplemented

    return method


_ARITHMETIC = "add sub mul truediv floordiv mod matmul lshift rshift and or xor divmod pow".split()
_UNARY = "neg pos invert abs round trunc floor ceil float int index complex bool len iter next"
_UNARY += " reversed str repr format bytes enter getitem setitem delitem copy deepcopy"
_TEXT = frozenset({"str", "repr", "format"})
# The operators with which tests measure the distance to an expected value.
_TAINTING = frozenset({"sub", "truediv", "floordiv", "mod", "divmod", "xor"})
_ORDER = "lt le gt ge".split()

for _name in _ARITHMETIC:
    if _name != "pow":
        setattr(Proxy, f"__{_name}__", _left(_name))
    setattr(Proxy, f"__r{_name}__", _right(_name))
for _name in _UNARY.split():
    setattr(Proxy, f"__{_name}__", _unary(_name))
for _name in _ORDER:
    setattr(Proxy, f"__{_name}__", _order(_name))


def _special(name: str) -> Callable[..., object]:
    def call(value: object, *rest: object) -> object:
        method = getattr(type(value), name, None)
        if method is None:
            raise TypeError(f"{type(value).__name__} object has no {name}")
        return method(value, *rest)

    return call


def _copy(name: str) -> Callable[[object], object]:
    def call(value: object, *_: object) -> object:
        import copy

        result: object = getattr(copy, name)(value)
        return result

    return call


OPERATIONS: dict[str, Callable[..., object]] = {
    **{name: getattr(operator, name) for name in _ARITHMETIC if hasattr(operator, name)},
    **{name: getattr(operator, name) for name in (*_ORDER, "eq", "neg", "pos", "invert")},
    **{name: getattr(operator, name) for name in ("getitem", "setitem", "delitem", "contains")},
    **{f.__name__: f for f in (abs, round, divmod, len, iter, next, reversed, repr, format, hash)},
    **{f.__name__: f for f in (float, int, complex, bool, str, bytes, isinstance, issubclass)},
    **{name: _special(f"__{name}__") for name in ("trunc", "floor", "ceil", "enter", "exit")},
    "and": operator.and_,
    "or": operator.or_,
    "index": operator.index,
    "copy": _copy("copy"),
    "deepcopy": _copy("deepcopy"),
}

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


class Peer:
    """One end of a conversation over two pipes; each end asks, and serves while it waits.

    ``trusted`` is the tester's end. While ``strict`` it never shows the candidate the other operand
    of an operator; suites that test classes with operators cannot do without.
    """

    def __init__(self, reader: int, writer: int, *, trusted: bool) -> None:
        self._reader, self._writer = reader, writer
        self.trusted = trusted
        self.lost = False
        self.strict = False
        self.test_modules: set[str] = set()
        self._lock = RLock()
        self._objects: list[object] = []
        self._handles: dict[int, int] = {}
        self._proxies: dict[int, Proxy] = {}
        self._errors: dict[int, type[BaseException]] = {}

    # --- the conversation -----------------------------------------------------------------------

    def ask(self, verb: str, *parts: object) -> object:
        """Have the other side do something and return (or raise) what came of it."""
        with self._lock:
            self._send(("ask", verb, parts))
            while True:
                message = self._receive()
                if message[0] == "ask":
                    self._serve(message)
                else:
                    return self._accept(message, parts)

    def serve_forever(self) -> None:
        """Serve until the other side is gone."""
        try:
            while True:
                self._serve(self._receive())
        except Lost:
            return

    def _serve(self, message: tuple[object, ...]) -> None:
        try:
            _, verb, parts = message
            changed = self._mutable(parts) if verb == "call" else []
            result = self._perform(verb, parts)
            after = [(spot, value) for spot, value, old in changed if self._snapshot(value) != old]
            self._send(("ok", result, after))
        except Lost:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever was raised crosses over
            self._send(("raise", error))

    def _accept(self, message: tuple[Any, ...], parts: tuple[Any, ...]) -> object:
        if message[0] == "raise" and isinstance(message[1], BaseException):
            raise message[1]
        if message[0] != "ok" or len(message) != 3 or type(message[2]) is not list:
            self._give_up()
        _, result, after = message
        for spot, value in after:
            target = parts[1][spot] if type(spot) is int else parts[2][spot]
            _refill(target, value)
        return result

    def _mutable(self, parts: Any) -> list[tuple[object, object, bytes]]:
        _, args, kwargs = parts
        spots = [*enumerate(args), *kwargs.items()]
        return [(spot, v, self._snapshot(v)) for spot, v in spots if type(v) in _MUTABLE]

    def _snapshot(self, value: object) -> bytes:
        try:
            return marshal.dumps(value, 2)  # type: ignore[arg-type]
        except ValueError:
            return self._encode(value)

    def _encode(self, value: object) -> bytes:
        return encode(value, self._export)

    def _send(self, message: tuple[object, ...]) -> None:
        try:
            data = self._encode(message)
        except (TypeError, RecursionError) as error:
            if message[0] == "ask":
                raise TypeError(f"cannot cross to the other process: {error}") from None
            text = f"cannot cross to the other process: {error}"
            data = self._encode(("raise", TypeError(text)))
        view = memoryview(len(data).to_bytes(4, "big") + data)
        try:
            while view:
                view = view[os.write(self._writer, view) :]
        except OSError:
            self._give_up()

    def _receive(self) -> tuple[object, ...]:
        size = int.from_bytes(self._read(4), "big")
        if size > MAX_MESSAGE:
            self._give_up()
        data = self._read(size)
        try:
            message = decode(data, self._restore)
        except (ValueError, LookupError, AttributeError, ArithmeticError, ImportError):
            self._give_up()
        if type(message) is not tuple or len(message) < 2:
            self._give_up()
        return message

    def _read(self, size: int) -> bytes:
        chunks: list[bytes] = []
        while size:
            data = os.read(self._reader, min(size, 1 << 20))
            if not data:
                self._give_up()
            chunks.append(data)
            size -= len(data)
        return b"".join(chunks)

    def _give_up(self) -> NoReturn:
        self.lost = True
        raise Lost("the candidate's process ended or sent nonsense")

    # --- what the other side asks for -----------------------------------------------------------

    def _perform(self, verb: object, parts: Any) -> object:
        if self.trusted:
            self._guard(verb, parts)
        target, rest = parts[0], parts[1:]
        if verb == "call":
            return target(*rest[0], **rest[1])
        if verb == "op":
            return OPERATIONS[target](*rest[0])
        if verb == "get":
            return _public(target) if rest == ("__all__",) else getattr(target, rest[0])
        if verb == "set":
            setattr(target, rest[0], rest[1])
            return None
        if verb == "del":
            delattr(target, rest[0])
            return None
        if verb == "plain":
            return plain_of(target)
        __import__(target)
        return sys.modules[target]

    def _guard(self, verb: object, parts: Any) -> None:
        """Refuse what a candidate has no business doing with the test's objects."""
        values = parts[1] if verb == "op" else parts[:1]
        if verb == "call" and self._callable(values[0]):
            return
        if verb in ("get", "set") and self._ours(type(values[0])):
            name = parts[1]
            if type(name) is str and not name.startswith("_"):
                return
        if verb == "op" and parts[0] in ("enter", "exit") and self._ours(type(values[0])):
            return
        if verb == "op" and parts[0] in _HARMLESS:
            return
        raise PermissionError("the candidate may not do that with an object of the test")

    def _callable(self, value: object) -> bool:
        if isinstance(value, types.BuiltinMethodType):
            return type(value.__self__) in (list, set, dict, bytearray)
        return isinstance(value, _CALLABLE) or self._ours(value) or self._ours(type(value))

    def _ours(self, kind: object) -> bool:
        return isinstance(kind, type) and kind.__module__ in self.test_modules

    # --- objects by handle ----------------------------------------------------------------------

    def _export(self, value: object) -> object:
        if type(value) is Proxy:
            return ("yours", _get(value, "_palestra_handle"))
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
        if self.trusted:
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
        if self.trusted and _standard_name(kind):
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

    def _restore(self, data: object) -> object:
        if type(data) is not tuple or len(data) < 2:
            raise ValueError("malformed handle")
        what, first = data[0], data[1]
        if what == "mine" and type(first) is int:
            return self._proxies.setdefault(first, Proxy(self, first))
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
        if what == "standard" and not self.trusted:
            return _standard(first, data[2])
        raise ValueError("malformed handle")

    def _error_class(self, handle: int, name: str, bases: tuple[type, ...]) -> type[BaseException]:
        if handle not in self._errors:
            parents = tuple(b for b in bases if _raisable(b))
            body = {
                "_palestra_handle": handle,
                "_palestra_peer": self,
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


_MUTABLE = (list, dict, set, bytearray)
_CALLABLE = (types.FunctionType, types.MethodType)
_HARMLESS = frozenset("iter next len getitem contains bool str repr hash eq lt le gt ge".split())


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


def _refill(target: Any, value: Any) -> None:
    """Make a mutable argument equal to what became of its copy on the other side."""
    if type(target) is not type(value):
        return
    if isinstance(target, (list, bytearray)):
        target[:] = value
    elif isinstance(target, (dict, set)):
        target.clear()
        target.update(value)


def _public(target: object) -> list[str]:
    listed = getattr(target, "__all__", None)
    return list(listed) if listed is not None else [n for n in dir(target) if n[:1] != "_"]


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
