"""Host folders of boxes: ``palestra-NAME/`` with ``work/``, perhaps ``tmp/``, and whose it is.

The record ``box.json`` is there before the folder has its name, and goes last: a folder that can be
found can be accounted for. While a box is being removed it is called ``gone.json``.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from palestra.rl.errors import SandboxError
from palestra.sandbox.owner import Owner

_PREFIX = "palestra-"
RECORD, _CONDEMNED = "box.json", "gone.json"
_PARTS = ("work", "tmp")
_ATTEMPTS = 5
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Whose a box is. ``made`` and ``expires`` are seconds since 1970, ``expires`` 0 from when the
    box is being removed. ``id`` tells it apart from a later box of its name.

    Example: ``Record.fresh({"run": "tiny-0"}, ttl=3600)``
    """

    id: str
    owner: Owner
    labels: Mapping[str, str]
    made: float
    expires: float

    @classmethod
    def fresh(cls, labels: Mapping[str, str], *, ttl: float) -> Record:
        """The record of a box that this process makes now and may live for ``ttl`` seconds."""
        now = time.time()
        return cls(
            id=secrets.token_hex(8), owner=Owner.me(), labels=labels, made=now, expires=now + ttl
        )

    @property
    def expired(self) -> bool:
        """True when its time to live is over."""
        return time.time() >= self.expires

    @property
    def orphan(self) -> bool:
        """True when nobody has a use for the box any more."""
        return self.expired or not self.owner.alive


def default_root() -> Path:
    """The folder that holds the folders of boxes unless a backend is told otherwise."""
    return Path(tempfile.gettempdir())


def create(root: Path, name: str, record: Record, *, user: int | None = None) -> Path:
    """Make the folder of a box, all or nothing; what is in it belongs to ``user`` if given.

    Raises ``FileExistsError`` where there is one of that name, and ``OSError``.
    """
    root.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}new-", dir=root))
    try:
        (draft / RECORD).write_text(_text(record))
        furnish(draft, "work", user)
        return draft.rename(root / name)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        if (root / name).exists():
            raise FileExistsError(name) from error
        raise


def furnish(folder: Path, part: str, user: int | None = None) -> Path:
    """Make a folder that is seen in a box unless it is there; it belongs to ``user`` if given."""
    made = folder / part
    made.mkdir(exist_ok=True)
    # Whatever our umask is: bwrap enters it before it becomes ``user``.
    made.chmod(0o755)
    if user is not None:
        os.chown(made, user, user)
    return made


def renew(folder: Path, user: int | None) -> None:
    """A new, empty work folder in place of what is in the folder of a box; raises ``OSError``, also
    when somebody still writes into the old one."""
    _clear(folder)
    furnish(folder, "work", user)


def take_over(root: Path, name: str, record: Record) -> Record:
    """Make an existing box ours, with the labels and the time to live of ``record``.

    Raises ``OSError``, also for a box of that name that is not one of this user's or is going.
    """
    found = find(root, name)
    if found is None or found.expires == 0:
        raise FileNotFoundError(f"{root / name} is not a box, or no longer")
    ours = replace(record, id=found.id, made=found.made)
    _write(root / name, ours)
    return ours


def condemn(root: Path, name: str) -> bool:
    """Say that a box is being removed, so that nothing that ends now counts as a result; False
    where there is none."""
    if find(root, name) is None:
        return False
    with suppress(FileNotFoundError):
        (root / name / RECORD).rename(root / name / _CONDEMNED)
    return True


def records(root: Path) -> Iterator[tuple[str, Record]]:
    """The boxes below ``root`` that this user made, by name."""
    for folder in root.glob(_PREFIX + "*"):
        record = find(root, folder.name)
        if record is not None:
            yield folder.name, record


def find(root: Path, name: str) -> Record | None:
    """The record of a box; None for whatever else lies there, links and folders of others too."""
    folder = root / name
    try:
        info = folder.lstat()
        if Path(name).name != name or not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid():
            return None
        try:
            return _parsed((folder / RECORD).read_text())
        except FileNotFoundError:
            return replace(_parsed((folder / _CONDEMNED).read_text()), expires=0)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remove(root: Path, name: str) -> None:
    """Delete the folder of a box; harmless when it is gone or is none of ours.

    A process that is still dying may write for a moment, so we try again. Raises ``SandboxError``.
    """
    folder = root / name
    if find(root, name) is None:
        return
    problem = ""
    for _ in range(_ATTEMPTS):
        try:
            _clear(folder)
            shutil.rmtree(folder)
        except FileNotFoundError:
            return
        except OSError as error:
            problem = str(error)
    if folder.exists():
        raise SandboxError(f"cannot remove the folder {folder}: {problem}")


def removed_empty(root: Path, name: str) -> bool:
    """Delete the folder of a condemned box that holds no files; False where it holds some."""
    folder = root / name
    try:
        for part in _PARTS:
            with suppress(FileNotFoundError):
                (folder / part).rmdir()
        (folder / _CONDEMNED).unlink()
        folder.rmdir()
    except OSError:
        return False
    return True


def _write(folder: Path, record: Record) -> None:
    # os.replace: somebody who lists boxes at this moment must not read half a record.
    fresh = folder / f".{record.id}-{os.getpid()}"
    fresh.write_text(_text(record))
    fresh.replace(folder / RECORD)


def _text(record: Record) -> str:
    values = {
        "id": record.id,
        "owner": str(record.owner),
        "labels": dict(record.labels),
        "made": record.made,
        "expires": record.expires,
    }
    return json.dumps(values)


def _parsed(text: str) -> Record:
    values = json.loads(text)
    return Record(
        id=str(values["id"]),
        owner=Owner.parse(values["owner"]),
        labels=dict(values["labels"]),
        made=float(values["made"]),
        expires=float(values["expires"]),
    )


def _clear(folder: Path) -> None:
    """Delete the folders in ``folder`` with all that is in them, whatever their depth and modes.

    Each is moved up before it is emptied: agents nest folders deeper than recursion and path names
    go. Every step is relative to an open folder and follows no link.
    """
    top = os.open(folder, _FOLDER)
    try:
        while names := _folders(top):
            for name in names:
                _unlock(name, top)
                _empty(name, top)
                os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)


def _folders(top: int) -> Sequence[str]:
    with os.scandir(top) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]


def _empty(name: str, top: int) -> None:
    """Delete the files in a folder and move the folders in it to ``top``."""
    current = os.open(name, _FOLDER, dir_fd=top)
    try:
        with os.scandir(current) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    _unlock(entry.name, current)
                    fresh = secrets.token_hex(8)
                    os.rename(entry.name, fresh, src_dir_fd=current, dst_dir_fd=top)
                else:
                    os.unlink(entry.name, dir_fd=current)
    finally:
        os.close(current)


def _unlock(name: str, parent: int) -> None:
    """Let us into a folder that the agent has shut."""
    # There is no chmod that follows no link, but there is one of an open file.
    handle = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        Path(f"/proc/self/fd/{handle}").chmod(0o700)
    finally:
        os.close(handle)
