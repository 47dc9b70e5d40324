"""What an agent changed in its tree: fetched as data, compared with the pristine tree by us.

The agent's git is never run and its ``.git`` never read, so neither hooks and filters nor a forged
history have a say.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from palestra.rl.errors import PathRefused
from palestra.rl.types import File, Patch, Sandbox, Tree

LEFT_BEHIND = frozenset({".git", "__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache"})
"""Names of folders and files that are never part of the work, wherever they are."""

SETTINGS = frozenset({"conftest.py", "pytest.ini", ".pytest.ini", "tox.ini"})
STARTUP = frozenset({"sitecustomize.py", "usercustomize.py"})
"""Names of files that decide how tests are run, or what Python runs first: nobody's work."""

MAX_CHANGED = 500
MAX_CHANGE = 1 << 20
MAX_CHANGES = 4 << 20
"""Paths, bytes of one file and bytes of all files that a patch may bring."""

_SPARE_FILES = 10_000
_SPARE_BYTES = 64 << 20


async def collect_patch(tree: Tree, box: Sandbox) -> Patch:
    """Freeze the box and say what is different in it from ``tree``.

    A folder that is too large to fetch gives a patch that is refused.
    """
    await box.freeze()
    try:
        found = await box.tree(
            skip=LEFT_BEHIND,
            max_files=2 * len(tree.files) + _SPARE_FILES,
            max_bytes=sum(len(file.data) for file in tree.files.values()) + _SPARE_BYTES,
        )
    except PathRefused as error:
        return Patch(files={}, refused=f"the work folder cannot be collected: {error}")
    return patch_of(tree, found)


def patch_of(tree: Tree, found: Mapping[str, File]) -> Patch:
    """The change from ``tree`` to the regular files ``found``.

    Ignored are paths that no pattern of ``tree.work`` matches, settings of test runners, modules
    that Python imports by itself, names that are not UTF-8, and new names that differ from others
    only in case or in how their letters are composed. Above a limit the patch is refused.
    """
    kept = {path: file for path, file in found.items() if _counts(path)}
    before = {path: file for path, file in tree.files.items() if _counts(path)}
    changed = sorted(
        path for path in before.keys() | kept.keys() if before.get(path) != kept.get(path)
    )
    ignored = {path for path in changed if not _is_work(path, tree.work)}
    ignored |= _clashing([*before, *(path for path in changed if path not in ignored)], before)
    files = {path: kept.get(path) for path in changed if path not in ignored}
    named = tuple(path.encode(errors="replace").decode() for path in sorted(ignored))
    refused = _too_large(files)
    return Patch(files={} if refused else files, refused=refused, ignored=named[:MAX_CHANGED])


def _counts(path: str) -> bool:
    return not LEFT_BEHIND & set(path.split("/")) and not path.endswith(".pyc")


def _is_work(path: str, patterns: Iterable[str]) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    name = path.rpartition("/")[2]
    if name in SETTINGS | STARTUP or name.endswith(".pth"):
        return False
    return any(fnmatchcase(path, pattern) for pattern in patterns)


def _clashing(paths: Iterable[str], before: Mapping[str, File]) -> set[str]:
    """The new paths among ``paths`` that some file system would take for another one."""
    first: dict[str, str] = {}
    clashing: set[str] = set()
    for path in paths:
        key = unicodedata.normalize("NFC", path.casefold())
        if first.setdefault(key, path) != path and path not in before:
            clashing.add(path)
    return clashing


def _too_large(files: Mapping[str, File | None]) -> str:
    if len(files) > MAX_CHANGED:
        return f"{len(files)} files were changed; {MAX_CHANGED} may be"
    sizes = {path: len(file.data) for path, file in files.items() if file is not None}
    for path, size in sizes.items():
        if size > MAX_CHANGE:
            return f"{path}: changed, and larger than {MAX_CHANGE} bytes"
    if sum(sizes.values()) > MAX_CHANGES:
        return f"the changed files are larger than {MAX_CHANGES} bytes in all"
    return ""
