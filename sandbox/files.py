"""Reading and writing below a folder that hostile code also writes to.

Every component is opened relative to its parent without following links, so a link swapped in at
any moment makes the operation fail instead of leaving the folder.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from palestra.rl.errors import PathRefused

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_WRITE = 64 << 20


def read_below(root: Path, path: str, max_bytes: int) -> bytes:
    """Bytes of the regular file ``path`` below ``root``.

    Raises ``PathRefused`` for links, devices, pipes, files above ``max_bytes`` and absent files.
    """
    parts = _parts(path)
    try:
        with _folder(root, parts[:-1], make=False) as parent:
            # O_NONBLOCK: opening a FIFO for reading would otherwise wait for a writer.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            with os.fdopen(os.open(parts[-1], flags, dir_fd=parent), "rb") as file:
                info = os.fstat(file.fileno())
                if not stat.S_ISREG(info.st_mode):
                    raise PathRefused(f"{path}: not a regular file")
                data = file.read(max_bytes + 1)
    except OSError as error:
        raise PathRefused(f"{path}: {error.strerror}") from error
    if len(data) > max_bytes:
        raise PathRefused(f"{path}: larger than {max_bytes} bytes")
    return data


def write_below(root: Path, path: str, data: bytes) -> None:
    """Replace the file ``path`` below ``root`` by a new regular file, making its folders.

    Raises ``PathRefused`` when a component is a link or the data exceeds 64 MiB.
    """
    parts = _parts(path)
    if len(data) > _MAX_WRITE:
        raise PathRefused(f"{path}: larger than {_MAX_WRITE} bytes")
    fresh = f".palestra-{secrets.token_hex(6)}"
    try:
        with _folder(root, parts[:-1], make=True) as parent:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(fresh, flags, 0o644, dir_fd=parent), "wb") as file:
                file.write(data)
            try:
                os.rename(fresh, parts[-1], src_dir_fd=parent, dst_dir_fd=parent)
            except OSError:
                with suppress(OSError):
                    os.unlink(fresh, dir_fd=parent)
                raise
    except OSError as error:
        raise PathRefused(f"{path}: {error.strerror}") from error


def _parts(path: str) -> list[str]:
    parts = path.split("/")
    if "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise PathRefused(f"{path!r}: not a plain relative path")
    return parts


@contextmanager
def _folder(root: Path, parts: list[str], *, make: bool) -> Iterator[int]:
    current = os.open(root, _FOLDER)
    try:
        for part in parts:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=current)
            below = os.open(part, _FOLDER, dir_fd=current)
            os.close(current)
            current = below
        yield current
    finally:
        os.close(current)
