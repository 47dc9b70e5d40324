"""Host folders of boxes: ``palestra-NAME/`` with ``work/``, ``tmp/`` and whose it is.

The record ``box.json`` is there before the folder has its name, and goes last: a folder that can be
found can be accounted for.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from palestra.rl.errors import SandboxError
from palestra.sandbox.owner import Owner

_PREFIX = "palestra-"
_RECORD = "box.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Whose a box is; ``made`` and ``expires`` are seconds since 1970.

    Example: ``Record(owner=Owner.me(), labels={"run": "tiny-0"}, made=now, expires=now + 3600)``
    """

    owner: Owner
    labels: Mapping[str, str]
    made: float
    expires: float

    @property
    def orphan(self) -> bool:
        """True when nobody has a use for the box any more."""
        return not self.owner.alive or time.time() >= self.expires


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
        _write(draft, record)
        for part in ("work", "tmp"):
            (draft / part).mkdir(mode=0o755)
            if user is not None:
                os.chown(draft / part, user, user)
        return draft.rename(root / name)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        if (root / name).exists():
            raise FileExistsError(name) from error
        raise


def take_over(root: Path, name: str, record: Record) -> Path:
    """Make an existing box ours; raises ``OSError``."""
    _write(root / name, record)
    return root / name


def records(root: Path) -> Iterator[tuple[str, Record]]:
    """The boxes below ``root`` that this user made, by name."""
    for folder in root.glob(_PREFIX + "*"):
        record = _read(folder)
        if record is not None:
            yield folder.name, record


def remove(root: Path, name: str) -> None:
    """Delete the folder of a box; harmless when it is gone or is none of ours.

    A process that is still dying may write for a moment, so we try again. Raises ``SandboxError``.
    """
    folder = root / name
    if Path(name).name != name or _read(folder) is None:
        return
    for _ in range(5):
        for part in ("work", "tmp"):
            _unlock(folder / part)
            shutil.rmtree(folder / part, ignore_errors=True)
        if not (folder / "work").exists() and not (folder / "tmp").exists():
            shutil.rmtree(folder, ignore_errors=True)
            return
    raise SandboxError(f"cannot remove the folder {folder}")


def _write(folder: Path, record: Record) -> None:
    # os.replace: somebody who lists boxes at this moment must not read half a record.
    fresh = folder / f".{_RECORD}-{os.getpid()}"
    values = {
        "owner": str(record.owner),
        "labels": dict(record.labels),
        "made": record.made,
        "expires": record.expires,
    }
    fresh.write_text(json.dumps(values))
    fresh.replace(folder / _RECORD)


def _read(folder: Path) -> Record | None:
    """The record of a box; None for whatever else lies there, links and folders of others too."""
    try:
        info = folder.lstat()
        if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid():
            return None
        values = json.loads((folder / _RECORD).read_text())
        return Record(
            owner=Owner.parse(values["owner"]),
            labels=dict(values["labels"]),
            made=float(values["made"]),
            expires=float(values["expires"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _unlock(folder: Path) -> None:
    """Give the owner back the folders it was locked out of; links are never followed."""
    pending = [folder]
    while pending:
        current = pending.pop()
        with suppress(OSError):
            if stat.S_IMODE(current.lstat().st_mode) & 0o700 != 0o700:
                current.chmod(0o700)
            with os.scandir(current) as entries:
                pending += [Path(e.path) for e in entries if e.is_dir(follow_symlinks=False)]
