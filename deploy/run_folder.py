"""The folder of one run: who may write into it, under which configuration, and what lies where."""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path

from palestra.deploy.atomic import write_text
from palestra.deploy.config import RunConfig
from palestra.deploy.config_file import dump, flatten, load_recipe
from palestra.deploy.summary import Summary
from palestra.deploy.versions import versions
from palestra.rl.errors import UserError

AUTO, NEVER = "auto", "never"

MAY_DIFFER = frozenset({"rl.steps", "rl.save_freq", "rl.hacking.stop_above", "logger"})
"""Keys that a resumed run may change; everything else would make it another run."""

LOCK, CONFIG, JOURNAL = "lock", "config.toml", "journal.sqlite"
LOCK_ATTEMPTS = 10  # ``is_running`` holds the lock for an instant


class RunFolder:
    """A run's folder, locked for this process until it is closed (or the process ends).

    ``resume`` is ``auto`` (go on where there is something to go on from), ``never``, or the folder
    to go on in. ``resumed`` says whether a journal was there.

    Example: ``with RunFolder(Path("runs/tiny"), config) as run: Journal(run.journal)``
    """

    def __init__(self, path: Path, config: RunConfig, *, resume: str = AUTO) -> None:
        explicit = resume not in (AUTO, NEVER)
        self.path = Path(resume) if explicit else path
        self.journal = self.path / JOURNAL
        self.console = self.path / "console.log"
        self.checkpoints = self.path / "checkpoints"
        if explicit and not self.journal.is_file():
            raise UserError(f"--resume {resume}: there is no journal here to resume from")
        _check_ours(self.path)
        self._lock = _lock(self.path)
        try:
            self.resumed = self.journal.exists()
            if self.resumed and resume == NEVER:
                raise UserError(
                    f"{self.path}: holds a run already, and --resume is never;"
                    " choose another --run or remove the folder"
                )
            if self.resumed:
                _check_config(self.path / CONFIG, config)
            self._write(config)
        except BaseException:
            self.close()
            raise

    def _write(self, config: RunConfig) -> None:
        write_text(self.path / CONFIG, dump(config))
        write_text(self.path / "versions.json", json.dumps(versions(), indent=2) + "\n")
        self.checkpoints.mkdir(exist_ok=True)

    def write_summary(self, summary: Summary) -> Path:
        """Replace ``summary.json``; a reader sees the old one or the new one."""
        path = self.path / "summary.json"
        write_text(path, json.dumps(summary.to_json(), indent=2, allow_nan=False) + "\n")
        return path

    def close(self) -> None:
        """Let other processes use the folder; safe to call twice."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def is_running(path: Path) -> bool:
    """True while a process holds the folder's lock."""
    try:
        descriptor = os.open(path / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _check_ours(path: Path) -> None:
    """Refuse to scatter a run over a folder that holds something else."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        names = {entry.name for entry in path.iterdir()}
    except OSError as error:
        raise UserError(f"{path}: cannot be a run folder: {error.strerror}") from error
    if names and not names & {LOCK, CONFIG, JOURNAL}:
        raise UserError(f"{path}: is not empty and not a run folder; choose another --run")


def _lock(path: Path) -> int:
    try:
        descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error
    for attempt in range(LOCK_ATTEMPTS):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if attempt < LOCK_ATTEMPTS - 1:
                time.sleep(0.02)
            continue
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        return descriptor
    holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
    os.close(descriptor)
    raise UserError(
        f"{path}: process {holder} is using this run folder; wait for it or choose another --run"
    )


def _check_config(stored: Path, config: RunConfig) -> None:
    if not stored.exists():
        raise UserError(f"{stored}: is missing, so the run cannot be resumed; choose another --run")
    before, now = flatten(load_recipe(stored).config), flatten(config)
    keys = [key for key in {**before, **now} if key not in MAY_DIFFER]
    differing = [k for k in keys if before.get(k) != now.get(k)]
    if differing:
        shown = ", ".join(f"{k} (was {before.get(k)!r}, is {now.get(k)!r})" for k in differing)
        raise UserError(
            f"{stored.parent}: cannot resume under another configuration: {shown};"
            " use the same values or choose another --run"
        )
