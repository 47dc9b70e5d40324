"""Objects of one process used from another: what lets tests run outside the candidate.

Plain data crosses by value, everything else by handle (``crossing``). The tester's side is
``trusted`` and keeps two rules: a candidate's object never decides a comparison with the test's own
data (``proxy``), and the candidate may do with the test's objects only what tests hand objects over
for: calling, iterating, reading public attributes.

Runs inside the box, so it imports only the standard library and the codec.
"""

from __future__ import annotations

import marshal
import os
import sys
import types
from _thread import RLock

from palestra.sandbox.codec import decode, encode
from palestra.sandbox.crossing import Handles, plain_of
from palestra.sandbox.proxy import OPERATIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

MAX_MESSAGE = 16 << 20

_MUTABLE = (list, dict, set, bytearray)
_CALLABLE = (types.FunctionType, types.MethodType)
_HARMLESS = frozenset("iter next len getitem contains bool str repr hash eq lt le gt ge".split())


class Lost(BaseException):
    """The other process is gone or talks nonsense; not an ``Exception``, so tests let it pass."""


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
        self._handles = Handles(self)

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
        return encode(value, self._handles.export)

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
            message = decode(data, self._handles.restore)
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
