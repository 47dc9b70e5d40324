"""What a trajectory's diff changed, read back from the text that ``envs/diff.py`` writes.

The text is ours, what stands in its lines is the agent's: hunks are read by their counts, so that
no line of a file is taken for anything else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from palestra.rl.types import Task

HUNK = re.compile(r"@@ -(\d+),(\d+) \+\d+,(\d+) @@")
HEADER, IGNORED = "diff --git ", "ignored: "
NO_END = "\\ No newline at end of file"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hunk:
    """Lines with their marks (`` ``, ``-``, ``+``) and ends; the first is line ``start``, from 0,
    of what was there before."""

    start: int
    lines: list[str]


@dataclass(slots=True, kw_only=True)
class FileDiff:
    """What became of one file; ``binary`` when its text is not told.

    Example: ``FileDiff(path="a.py", hunks=[Hunk(start=0, lines=["-x = 1\\n", "+x = 2\\n"])])``
    """

    path: str
    deleted: bool = False
    binary: bool = False
    hunks: list[Hunk] = field(default_factory=list)

    @property
    def changed(self) -> int:
        """Lines that were added and lines that were taken away."""
        return sum(line[0] != " " for hunk in self.hunks for line in hunk.lines)

    def after(self, before: str) -> str:
        """The text of the file, from what it was; raises ``ValueError`` where that does not fit."""
        lines = _lines(before)
        made: list[str] = []
        done = 0
        for hunk in self.hunks:
            old = [line[1:] for line in hunk.lines if line[0] != "+"]
            if lines[hunk.start : hunk.start + len(old)] != old or hunk.start < done:
                raise ValueError(f"{self.path}: the change does not fit")
            made += lines[done : hunk.start]
            made += [line[1:] for line in hunk.lines if line[0] != "-"]
            done = hunk.start + len(old)
        return "".join([*made, *lines[done:]])


def files_of(diff: str) -> list[FileDiff]:
    """The files of a diff; raises ``ValueError`` for one that was refused or cut off."""
    lines = diff.split("\n")
    if lines.pop():
        raise ValueError("the diff is cut off")
    found: list[FileDiff] = []
    rest = iter(lines)
    for line in rest:
        if line.startswith(HEADER):
            found.append(FileDiff(path=_path(line.removeprefix(HEADER))))
        elif not found or line.startswith(("refused: ", "... ")):
            raise ValueError(line)
        elif line.startswith("deleted file "):
            found[-1].deleted = True
        elif line.startswith("Binary files "):
            found[-1].binary = True
        elif head := HUNK.fullmatch(line):
            start, old, new = (int(number) for number in head.groups())
            lines_of = _hunk(rest, old, new)
            found[-1].hunks.append(Hunk(start=start - 1 if old else start, lines=lines_of))
        elif line == NO_END and found[-1].hunks:
            _without_end(found[-1].hunks[-1].lines)
    return found


def _hunk(rest: Iterator[str], old: int, new: int) -> list[str]:
    """The lines of a hunk that spans ``old`` lines before and ``new`` after."""
    lines: list[str] = []
    while old > 0 or new > 0:
        line = next(rest, "")
        if line == NO_END and lines:
            _without_end(lines)
            continue
        if line[:1] not in (" ", "-", "+") or not line:
            raise ValueError("the diff is cut off")
        old -= line[0] != "+"
        new -= line[0] != "-"
        lines.append(f"{line}\n")
    return lines


def _without_end(lines: list[str]) -> None:
    lines[-1] = lines[-1].removesuffix("\n")


def named(diff: str) -> set[str]:
    """The paths that were changed, or whose change was ignored, as far as the diff goes."""
    lines = diff.split("\n")
    changed = {_path(x.removeprefix(HEADER)) for x in lines if x.startswith(HEADER)}
    return changed | {_plain(x.removeprefix(IGNORED)) for x in lines if x.startswith(IGNORED)}


def _path(names: str) -> str:
    """``a/P b/P`` to ``P``, of which each may be in quotes."""
    return _plain(names[: len(names) // 2]).removeprefix("a/")


def _plain(name: str) -> str:
    if not name.startswith('"'):
        return name
    return re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), name[1:-1])


def _lines(text: str) -> list[str]:
    """Lines with their ends, split at line feeds alone."""
    lines = [f"{line}\n" for line in text.split("\n")]
    last = lines.pop().removesuffix("\n")
    return [*lines, last] if last else lines


def original(task: Task, path: str) -> str:
    """What the agent found at a path; empty where there was nothing."""
    if task.tree is None:
        return task.files.get(path, "")
    file = task.tree.files.get(path)
    return file.data.decode(errors="replace") if file else ""


def texts_after(task: Task, diff: str) -> dict[str, str]:
    """The text of every file that a diff of a task's work changed or made, by path; those that it
    deleted, or whose text it does not tell, are left out. Raises as ``files_of``."""
    return {
        file.path: file.after(original(task, file.path))
        for file in files_of(diff)
        if not file.deleted and not file.binary
    }
