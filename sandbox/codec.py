"""Plain Python data as bytes: exact types, bounded, no code run on decoding.

Runs on both sides of the box wall, so it imports nothing. ``decode`` is safe on hostile bytes: it
raises ``ValueError`` for anything that ``encode`` would not have written.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MAX_DEPTH = 100

_SIZE = 4
_PACKED_FROM = 64


def encode(value: object, export: Callable[[object], object] | None = None) -> bytes:
    """Bytes of plain data (None, bool, int, float, complex, str, bytes and the builtin containers).

    ``export`` turns any other object into plain data that ``decode`` hands to ``restore``; without
    it, an object of any other type, subclasses included, raises ``TypeError``.
    """
    chunks: list[bytes] = []
    _encode(value, chunks, export, MAX_DEPTH)
    return b"".join(chunks)


def decode(data: bytes, restore: Callable[[object], object] | None = None) -> object:
    """The value that ``encode`` wrote, or ``ValueError``."""
    try:
        value, end = _decode(data, 0, restore, MAX_DEPTH)
    except (TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"malformed data: {error}") from error
    if end != len(data):
        raise ValueError("malformed data: trailing bytes")
    return value


def _leaf(value: object) -> tuple[bytes, bytes] | None:
    kind = type(value)
    if kind is str:
        return b"s", str.encode(value, "utf-8", "surrogatepass")  # type: ignore[arg-type]
    if kind is int:
        width = int.bit_length(value) // 8 + 1  # type: ignore[arg-type]
        return b"i", int.to_bytes(value, width, "big", signed=True)  # type: ignore[arg-type]
    if kind is float:
        return b"f", float.hex(value).encode()  # type: ignore[arg-type]
    if kind is bytes:
        return b"b", value  # type: ignore[return-value]
    if kind is bytearray:
        return b"a", bytes(value)  # type: ignore[call-overload]
    if kind is complex:
        both = float.hex(value.real) + " " + float.hex(value.imag)  # type: ignore[attr-defined]
        return b"c", both.encode()
    return None


def _encode(
    value: object, out: list[bytes], export: Callable[[object], object] | None, depth: int
) -> None:
    if depth <= 0:
        raise TypeError("data nested too deeply")
    if value is None or value is True or value is False:
        out.append(b"N" if value is None else b"T" if value is True else b"F")
        return
    leaf = _leaf(value)
    if leaf is not None:
        out.append(leaf[0] + len(leaf[1]).to_bytes(_SIZE, "big"))
        out.append(leaf[1])
        return
    if type(value) is list and len(value) >= _PACKED_FROM and _pack(value, out):
        return
    tag = _CONTAINERS.get(type(value))
    if tag is not None:
        items: list[object] = list(value)  # type: ignore[call-overload]
        out.append(tag + len(items).to_bytes(_SIZE, "big"))
        for item in items:
            _encode(item, out, export, depth - 1)
            if tag == b"d":
                _encode(value[item], out, export, depth - 1)  # type: ignore[index]
        return
    if export is None:
        raise TypeError(f"{type(value).__name__} object is not plain data")
    out.append(b"x")
    _encode(export(value), out, export, depth - 1)


def _pack(value: list[object], out: list[bytes]) -> bool:
    """A long list of machine integers or floats, at the speed of C."""
    kinds = set(map(type, value))
    if kinds != {int} and kinds != {float}:
        return False
    from array import array

    code = "q" if kinds == {int} else "d"
    try:
        data = array(code, value).tobytes()  # type: ignore[type-var]
    except OverflowError:
        return False
    out.append(code.upper().encode() + len(data).to_bytes(_SIZE, "big"))
    out.append(data)
    return True


def _unpack(code: str) -> Callable[[bytes], object]:
    def unpack(data: bytes) -> object:
        from array import array

        found = array(code)
        found.frombytes(data)
        return found.tolist()

    return unpack


def _decode(
    data: bytes, at: int, restore: Callable[[object], object] | None, depth: int
) -> tuple[object, int]:
    if depth <= 0:
        raise ValueError("malformed data: nested too deeply")
    tag, at = data[at : at + 1], at + 1
    if tag in _CONSTANTS:
        return _CONSTANTS[tag], at
    if tag == b"x" and restore is not None:
        value, at = _decode(data, at, restore, depth - 1)
        return restore(value), at
    if len(data) < at + _SIZE:
        raise ValueError("malformed data: cut short")
    size, at = int.from_bytes(data[at : at + _SIZE], "big"), at + _SIZE
    # Every item takes a byte at least, so this bounds containers as well.
    if size > len(data) - at:
        raise ValueError("malformed data: cut short")
    if tag in _LEAVES:
        return _LEAVES[tag](data[at : at + size]), at + size
    if tag not in _BUILDERS:
        raise ValueError("malformed data: unknown tag")
    items: list[object] = []
    for _ in range(2 * size if tag == b"d" else size):
        value, at = _decode(data, at, restore, depth - 1)
        items.append(value)
    return _BUILDERS[tag](items), at


def _complex(text: bytes) -> complex:
    real, imag = text.decode().split(" ")
    return complex(float.fromhex(real), float.fromhex(imag))


_CONSTANTS: dict[bytes, object] = {b"N": None, b"T": True, b"F": False}
_CONTAINERS: dict[type, bytes] = {
    list: b"l",
    tuple: b"t",
    dict: b"d",
    set: b"S",
    frozenset: b"Z",
}
_LEAVES: dict[bytes, Callable[[bytes], object]] = {
    b"s": lambda raw: raw.decode("utf-8", "surrogatepass"),
    b"i": lambda raw: int.from_bytes(raw, "big", signed=True),
    b"f": lambda raw: float.fromhex(raw.decode()),
    b"b": bytes,
    b"a": bytearray,
    b"c": _complex,
    b"Q": _unpack("q"),
    b"D": _unpack("d"),
}
_BUILDERS: dict[bytes, Callable[[list[object]], object]] = {
    b"l": lambda items: items,
    b"t": tuple,
    b"d": lambda items: dict(zip(items[::2], items[1::2], strict=True)),
    b"S": set,
    b"Z": frozenset,
}
