"""When a candidate's value counts as the expected one."""

from __future__ import annotations

import math

from palestra.sandbox.codec import encode

_TOLERANCE = 1e-9


def same(expected: object, got: object) -> bool:
    """Equality of decoded plain data.

    Types must agree exactly (True is not 1, a list is not a tuple), but an int and a float may be
    equal. Floats agree within a relative 1e-9, and nan agrees with nan. Elements of sets and keys
    of dicts must be identical.
    """
    if type(expected) is not type(got):
        return _number(expected) and _number(got) and bool(expected == got)
    if isinstance(expected, float) and isinstance(got, float):
        if math.isnan(expected) or math.isnan(got):
            return math.isnan(expected) and math.isnan(got)
        return expected == got or math.isclose(expected, got, rel_tol=_TOLERANCE)
    if isinstance(expected, (list, tuple)) and isinstance(got, (list, tuple)):
        return len(expected) == len(got) and all(map(same, expected, got))
    if isinstance(expected, dict) and isinstance(got, dict):
        left, right = _by_key(expected), _by_key(got)
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(expected, (set, frozenset)) and isinstance(got, (set, frozenset)):
        return set(map(_identity, expected)) == set(map(_identity, got))
    return bool(expected == got)


def shown(value: object, size: int = 60) -> str:
    """A short text of a value, for people and agents."""
    try:
        text = repr(value)
    except (ValueError, RecursionError) as error:  # Python refuses to print very long integers.
        text = f"<{type(value).__name__}: {error}>"
    return text if len(text) <= size else text[: size - 3] + "..."


def _number(value: object) -> bool:
    return type(value) in (int, float)


def _by_key(value: dict[object, object]) -> dict[bytes, object]:
    return {_identity(key): item for key, item in value.items()}


def _identity(value: object) -> bytes:
    # A frozenset's encoding depends on its order, which equal sets may not share.
    if isinstance(value, frozenset):
        return b"Z" + b"".join(sorted(_identity(item) for item in value))
    if isinstance(value, tuple):
        return b"t" + b"".join(_identity(item) for item in value)
    return encode(value)
