"""An object of another process as code of this one sees it: a proxy, and what operators do with it.

On the tester's side a candidate's object never decides a comparison with the test's own data: it is
asked for its plain value instead. Runs inside the box: standard library only.
"""

from __future__ import annotations

import _operator as operator

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from palestra.sandbox.peer import Peer

_set = object.__setattr__
_get = object.__getattribute__


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


def handle_of(proxy: Proxy) -> int:
    """The number by which the other process knows the object."""
    handle: int = _get(proxy, "_palestra_handle")
    return handle


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
    return Proxy(peer, handle_of(value), tainted=True)


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
