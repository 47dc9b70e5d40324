"""Exercism exercises as tasks to write from a stub (``repair:DIR`` breaks their solutions)."""

from __future__ import annotations

from pathlib import Path

from palestra.envs.complete import Complete
from palestra.envs.folders import exercise_files, text_within
from palestra.envs.programs import visible_part
from palestra.envs.rows import BadRow
from palestra.envs.unit_tests import unit_checks
from palestra.rl.types import Task

_TEXTS = ("introduction.md", "instructions.md", "instructions.append.md")


def exercise_task(folder: Path) -> Task:
    """A task from ``.meta/config.json``, ``.docs/instructions*.md``, stubs and tests; raises
    ``BadRow``."""
    stubs, reference, tests = exercise_files(folder)
    if not stubs:
        raise BadRow(".meta/config.json: files.solution is empty")
    checks = unit_checks(tests)
    if not checks:
        raise BadRow("no unittest methods in its test files")
    return Task(
        id=f"exercism/{folder.name}",
        source=Complete.name,
        kind="complete",
        prompt=f"{_instructions(folder)}\nStart from {', '.join(stubs)}:\n{_shown(stubs)}",
        files=stubs,
        reference=reference,
        artifacts=tuple(stubs),
        visible=visible_part(checks),
        hidden=checks,
        test_files=tests,
    )


def _instructions(folder: Path) -> str:
    found = [f".docs/{name}" for name in _TEXTS if (folder / ".docs" / name).is_file()]
    if not found:
        raise BadRow(".docs: no instructions")
    return "\n".join(text_within(folder, name) for name in found)


def _shown(stubs: dict[str, str]) -> str:
    if len(stubs) == 1:
        return "".join(stubs.values())
    return "\n".join(f"--- {path}\n{text}" for path, text in stubs.items())
