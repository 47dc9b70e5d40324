"""The tree that is graded: pristine files, the agent's patch, and the task's tests over both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from palestra.rl.errors import UserError
from palestra.rl.types import File, Patch


def patched(
    pristine: Mapping[str, File], patch: Patch, tests: Mapping[str, str]
) -> dict[str, File]:
    """``pristine`` with ``patch`` applied, less every file that ``tests`` replace or need gone.

    A changed path that cannot exist beside a file that stays, such as ``a/b`` beside ``a``, is left
    out. Raises ``UserError`` for a path that is no plain relative one.
    """
    plain([*pristine, *patch.files, *tests])
    kept = {path: file for path, file in pristine.items() if path not in patch.files}
    added = {path: file for path, file in patch.files.items() if file is not None}
    tree = {**kept, **_beside(added, [*kept, *tests])}
    return {path: file for path, file in _beside(tree, tests).items() if path not in tests}


def plain(paths: Iterable[str]) -> None:
    """Raise ``UserError`` for a path that could lead out of a folder."""
    for path in paths:
        if "\0" in path or any(part in ("", ".", "..") for part in path.split("/")):
            raise UserError(f"{path!r} is not a plain relative path")


def _beside(files: Mapping[str, File], others: Iterable[str]) -> dict[str, File]:
    """The files that can exist beside others: none is a folder of theirs, nor below one of them."""
    fixed = set(others)
    folders = {folder for path in fixed for folder in _folders(path)}
    return {
        path: file
        for path, file in files.items()
        if path not in folders and not fixed & _folders(path)
    }


def _folders(path: str) -> set[str]:
    parts = path.split("/")
    return {"/".join(parts[:size]) for size in range(1, len(parts))}
