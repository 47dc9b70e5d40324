"""Programs read from folders: Exercism exercises, and packages with ``unittest`` files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from palestra.envs.programs import Program, visible_part
from palestra.envs.rows import BadRow, list_field
from palestra.envs.taskset import Skipped
from palestra.envs.unit_tests import unit_checks
from palestra.rl.errors import UserError

MAX_FILES = 200


def folder_programs(folder: Path) -> Iterator[Program | Skipped]:
    """The programs of a folder: one per exercise, or the one package that the folder is.

    Raises ``UserError`` when the folder is missing or holds neither.
    """
    if not folder.is_dir():
        raise UserError(f"no folder {folder}")
    exercises = sorted(path.parent.parent for path in folder.glob("*/.meta/config.json"))
    if (folder / ".meta" / "config.json").is_file():
        exercises = [folder]
    if not exercises:
        try:
            yield _package(folder)
        except BadRow as error:
            raise UserError(f"{folder}: {error}") from error
    for exercise in exercises:
        try:
            yield _exercise(within(folder, exercise.relative_to(folder).as_posix()))
        except BadRow as error:
            yield Skipped(id=exercise.name, reason=str(error))


def exercise_files(folder: Path) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """Stubs, reference and test files of one exercise, each by path; raises ``BadRow``.

    Modules beside them that the settings do not name are helpers of the tests.
    """
    try:
        listed = json.loads(text_within(folder, ".meta/config.json"))["files"]
        solution, test, example = (
            list_field(listed, name) for name in ("solution", "test", "example")
        )
        editor = list_field(listed, "editor", optional=True)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadRow(f".meta/config.json: {type(error).__name__}: {error}") from error
    examples = [name for name in example if name.endswith(".py")]
    if len(examples) != len(solution):
        raise BadRow(".meta/config.json: files.example does not match files.solution")
    stubs = {name: text_within(folder, name) for name in solution}
    reference = {s: text_within(folder, e) for s, e in zip(solution, examples, strict=True)}
    named = {*solution, *test, *editor}
    helpers = sorted(path.name for path in folder.glob("*.py") if path.name not in named)
    return stubs, reference, {n: text_within(folder, n) for n in [*test, *editor, *helpers]}


def within(folder: Path, name: str) -> Path:
    """A path in a folder; raises ``BadRow`` where it is none, or leads out of it, as links may."""
    try:
        inside = (folder / name).resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError) as error:
        raise BadRow(f"{name[:80]!r} is no path: {error}") from error
    if not inside:
        raise BadRow(f"{name[:80]!r} leads out of {folder.name}")
    return folder / name


def text_within(folder: Path, name: str) -> str:
    """The text of a file in a folder; raises ``BadRow``."""
    try:
        text = within(folder, name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadRow(f"{name[:80]}: {error}") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _exercise(folder: Path) -> Program:
    _, reference, tests = exercise_files(folder)
    return _program(folder.name, reference, tests)


def _package(folder: Path) -> Program:
    paths = sorted(
        path
        for path in folder.rglob("*.py")
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not paths or len(paths) > MAX_FILES:
        raise UserError(f"{folder} has {len(paths)} Python files; repair: takes 1 to {MAX_FILES}")
    names = [path.relative_to(folder).as_posix() for path in paths]
    texts = {name: text_within(folder, name) for name in names}
    tests = {path: text for path, text in texts.items() if _is_test(path)}
    if not tests:
        raise UserError(f"{folder} has no exercises and no test_*.py or *_test.py files")
    return _program(
        folder.resolve().name, {p: t for p, t in texts.items() if p not in tests}, tests
    )


def _program(name: str, files: Mapping[str, str], tests: Mapping[str, str]) -> Program:
    checks = unit_checks(tests)
    if not checks:
        raise BadRow("no unittest methods in its test files")
    return Program(
        id=name, files=files, checks=checks, visible=visible_part(checks), test_files=tests
    )


def _is_test(path: str) -> bool:
    name = path.rpartition("/")[2]
    return name.startswith("test_") or name.endswith("_test.py") or path.startswith("tests/")
