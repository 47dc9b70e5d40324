"""Reading and writing below a folder that hostile code also writes to.

Every component is opened relative to its parent without following links, so a link swapped in at
any moment makes the operation fail instead of leaving the folder.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from palestra.rl.errors import PathRefused, SandboxError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_WRITE = 64 << 20
_MAX_DEPTH = 100
_MAX_PATH = 4096
_SHOWN = 200
_OURS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def read_below(root: Path, path: str, max_bytes: int) -> bytes:
    """Bytes of the regular file ``path`` below ``root``.

    Raises ``PathRefused`` for links, devices, pipes, files above ``max_bytes``, absent files and
    paths above 4096 bytes.
    """
    parts = _parts(path)
    with _refusing(path), _folder(root, parts[:-1], make=False) as parent:
        return _read(parent, parts[-1], path, max_bytes)[0]


def read_tree(
    root: Path, path: str, *, skip: Collection[str] = (), max_files: int, max_bytes: int
) -> dict[str, tuple[bytes, bool]]:
    """The regular files below the folder ``path`` of ``root``, by path relative to ``root``: their
    bytes, and whether their owner may execute them.

    Links, devices and pipes are left out, and whatever has a name in ``skip``. Raises
    ``PathRefused`` above ``max_files`` other entries, links and the like included, above
    ``max_bytes`` in all, paths included, for paths above 4096 bytes and for folders nested more
    than 100 deep.
    """
    found: dict[str, tuple[bytes, bool]] = {}
    pending: list[list[str]] = [[] if path == "." else _parts(path)]
    entries = 0
    while pending:
        parts = pending.pop()
        here = "/".join(parts)
        if len(parts) > _MAX_DEPTH:
            raise PathRefused(f"{_shown(path)}: folders more than {_MAX_DEPTH} deep")
        with (
            _refusing(here or "."),
            _folder(root, parts, make=False) as folder,
            os.scandir(folder) as listing,
        ):
            for entry in listing:
                if entry.name in skip:
                    continue
                entries += 1
                if entries > max_files:
                    raise PathRefused(f"{_shown(path)}: more than {max_files} entries")
                if entry.is_dir(follow_symlinks=False):
                    pending.append([*parts, entry.name])
                elif entry.is_file(follow_symlinks=False):
                    name = "/".join([*parts, entry.name])
                    max_bytes -= _size(name)
                    found[name] = _read(folder, entry.name, path, max_bytes)
                    max_bytes -= len(found[name][0])
    return found


def write_below(root: Path, path: str, data: bytes, *, executable: bool = False) -> None:
    """Replace the file ``path`` below ``root`` by a new regular file, making its folders.

    Raises ``PathRefused`` when a component is a link or the data exceeds 64 MiB.
    """
    parts = _parts(path)
    if len(data) > _MAX_WRITE:
        raise PathRefused(f"{_shown(path)}: larger than {_MAX_WRITE} bytes")
    fresh = f".palestra-{secrets.token_hex(6)}"
    with _refusing(path), _folder(root, parts[:-1], make=True) as parent:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        mode = 0o755 if executable else 0o644
        try:
            with os.fdopen(os.open(fresh, flags, mode, dir_fd=parent), "wb") as file:
                _give(file.fileno(), root)
                file.write(data)
            os.rename(fresh, parts[-1], src_dir_fd=parent, dst_dir_fd=parent)
        except OSError:
            with suppress(OSError):
                os.unlink(fresh, dir_fd=parent)
            raise


def _parts(path: str) -> list[str]:
    parts = path.split("/")
    if "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise PathRefused(f"{_shown(path)!r}: not a plain relative path")
    _size(path)
    return parts


def _size(path: str) -> int:
    """Bytes of a path, which others pass on and show."""
    try:
        size = len(os.fsencode(path))
    except UnicodeEncodeError:
        raise PathRefused(f"{_shown(path)!r}: not a name of a file") from None
    if size > _MAX_PATH:
        raise PathRefused(f"{_shown(path)}: a path of more than {_MAX_PATH} bytes")
    return size


def _shown(path: str) -> str:
    """The beginning of a path, as text that can be written anywhere."""
    text = path if len(path) <= _SHOWN else f"{path[:_SHOWN]}..."
    return text.encode(errors="replace").decode()


@contextmanager
def _refusing(path: str) -> Iterator[None]:
    """What the agent's files make impossible is its fault; what the machine lacks is ours."""
    try:
        yield
    except OSError as error:
        kind = SandboxError if error.errno in _OURS else PathRefused
        raise kind(f"{_shown(path)}: {error.strerror}") from error


def _read(parent: int, name: str, path: str, max_bytes: int) -> tuple[bytes, bool]:
    # O_NONBLOCK: opening a FIFO for reading would otherwise wait for a writer.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, dir_fd=parent), "rb") as file:
        info = os.fstat(file.fileno())
        if not stat.S_ISREG(info.st_mode):
            raise PathRefused(f"{_shown(path)}: not a regular file")
        # The size first: a sparse file costs its writer nothing and us its whole length.
        data = file.read(max_bytes + 1) if info.st_size <= max_bytes else b""
    if len(data) > max_bytes or info.st_size > max_bytes:
        raise PathRefused(f"{_shown(path)}: larger than {max(max_bytes, 0)} bytes")
    return data, bool(info.st_mode & stat.S_IXUSR)


def _give(fd: int, root: Path) -> None:
    """What root makes in a box belongs to whom the box belongs to; others cannot give away."""
    owner = root.stat()
    if os.geteuid() == 0 != owner.st_uid:
        os.fchown(fd, owner.st_uid, owner.st_gid)


@contextmanager
def _folder(root: Path, parts: list[str], *, make: bool) -> Iterator[int]:
    current = os.open(root, _FOLDER)
    try:
        for part in parts:
            made = make and _made(part, current)
            below = os.open(part, _FOLDER, dir_fd=current)
            os.close(current)
            current = below
            if made:
                _give(current, root)
        yield current
    finally:
        os.close(current)


def _made(name: str, parent: int) -> bool:
    try:
        os.mkdir(name, 0o755, dir_fd=parent)
    except FileExistsError:
        return False
    return True
