"""Packages with their tests, read from folders: material for bugs in whole repositories."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from palestra.envs.folders import exercise_files, text_within, within
from palestra.envs.repository import MAX_BYTES, MAX_FILES, snapshot, without_git
from palestra.envs.rows import BadRow
from palestra.envs.suite_tests import is_test_path
from palestra.envs.taskset import Skipped
from palestra.rl.errors import UserError
from palestra.rl.types import File

_MADE = frozenset({"__pycache__", "build", "dist", "node_modules", "venv"})


@dataclass(frozen=True, kw_only=True, eq=False)
class Package:
    """All files of a repository, correct, with its tests.

    Example: ``Package(name="calc", files={"calc.py": code, "tests/test_calc.py": tests})``
    """

    name: str
    files: dict[str, File]

    @cached_property
    def sources(self) -> Mapping[str, str]:
        """The Python files that are no tests."""
        return {p: t for p, t in self._texts.items() if p.endswith(".py") and not is_test_path(p)}

    @cached_property
    def test_files(self) -> Mapping[str, str]:
        """The text files that belong to the tests."""
        return {path: text for path, text in self._texts.items() if is_test_path(path)}

    @cached_property
    def _texts(self) -> Mapping[str, str]:
        found: dict[str, str] = {}
        for path, file in self.files.items():
            try:
                found[path] = file.data.decode()
            except UnicodeDecodeError:
                continue
        return found


def packages(folder: Path) -> Iterator[Package | Skipped]:
    """The package that a folder is, as git's HEAD has it where it is a repository; or one for each
    Exercism exercise in it. Raises ``UserError`` where there is none, or where it is too large."""
    if not folder.is_dir():
        raise UserError(f"no folder {folder}")
    exercises = sorted(path.parent.parent for path in folder.glob("*/.meta/config.json"))
    if (folder / ".meta" / "config.json").is_file():
        exercises = [folder]
    for exercise in exercises:
        try:
            yield _exercise(within(folder, exercise.relative_to(folder).as_posix()))
        except BadRow as error:
            yield Skipped(id=exercise.name, reason=str(error))
    if not exercises:
        name = folder.resolve().name.removesuffix(".git")
        bare = (folder / "HEAD").is_file() and (folder / "objects").is_dir()
        if bare or (folder / ".git").exists():
            yield Package(name=name, files=dict(snapshot(folder, "HEAD").files))
        else:
            yield Package(name=name, files=without_git(_on_disk(folder)))


def _exercise(folder: Path) -> Package:
    """The reference in the place of the stub, the tests, and what the exercise asks for."""
    _, reference, tests = exercise_files(folder)
    texts = {**reference, **tests}
    for path in sorted(folder.glob(".docs/*.md")):
        name = path.relative_to(folder).as_posix()
        texts[name] = text_within(folder, name)
    return Package(
        name=folder.name, files={path: File(data=text.encode()) for path, text in texts.items()}
    )


def _on_disk(folder: Path) -> dict[str, File]:
    """The regular files of a folder, less hidden ones and what is made of others."""
    found: dict[str, File] = {}
    size = 0
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.is_symlink() or not path.is_file() or _is_made(inside):
            continue
        data = path.read_bytes()
        size += len(data)
        if len(found) == MAX_FILES or size > MAX_BYTES:
            raise UserError(f"{folder}: more than {MAX_FILES} files or {MAX_BYTES} bytes")
        executable = bool(path.stat().st_mode & 0o100)
        found[inside.as_posix()] = File(data=data, executable=executable)
    return found


def _is_made(path: Path) -> bool:
    return any(
        part.startswith(".") or part in _MADE or part.endswith((".egg-info", ".pyc"))
        for part in path.parts
    )
