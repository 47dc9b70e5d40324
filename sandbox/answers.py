"""What a worker says on its report descriptor; runs on both sides of a box: it imports little."""

from __future__ import annotations

import os

HELLO = b"palestra 1"
VALUE, ERROR, PASSED, FAILED, TIMEOUT = b"v", b"e", b"p", b"f", b"t"


def write(fd: int, data: bytes) -> None:
    """Write all of ``data``."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def frame(index: int, kind: bytes, data: bytes) -> bytes:
    """One answer to the check ``index``."""
    return len(data).to_bytes(4, "big") + index.to_bytes(4, "big") + kind + data


def describe(error: BaseException) -> bytes:
    """``ErrorName: message``, cut at 200 bytes; the message is code of the candidate."""
    name = type.__getattribute__(type(error), "__name__")
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 - the candidate may raise anything
        text = "?"
    return f"{name}: {text}".encode(errors="replace")[:200]
