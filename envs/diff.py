"""A patch as people read it: a unified diff in git's format, for journals and reviews.

Nothing is graded by it; what is graded is the ``Patch``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher

from palestra.rl.types import File, Patch, Task, Work

MAX_DIFF = 64 << 10
"""Characters of a diff that are kept."""

_CONTEXT = 3
# The matcher takes more than quadratic time where an agent wants it to: beyond, all is replaced.
_MAX_PRODUCT = 250_000


def unified(pristine: Mapping[str, File], patch: Patch) -> str:
    """The patch as a diff that ``git apply`` takes, but for binary files, which are only named.

    A refused patch is one line that says why, and what was ignored is named at the end.
    """
    if patch.refused:
        return f"refused: {patch.refused}\n"
    parts = [_file(path, pristine.get(path), after) for path, after in sorted(patch.files.items())]
    text = "".join(parts)
    if len(text) > MAX_DIFF:
        text = f"{text[:MAX_DIFF]}\n... {len(text) - MAX_DIFF} more characters\n"
    return text + "".join(f"ignored: {_quoted(path)}\n" for path in patch.ignored)


def diff_of(task: Task, work: Work) -> str:
    """The diff of what the agent changed in a task's tree, or in its artifacts."""
    if isinstance(work, Patch):
        return unified(task.tree.files if task.tree else {}, work)
    before = {
        path: File(data=task.files[path].encode(errors="replace"))
        for path in task.artifacts
        if path in task.files
    }
    after: dict[str, File | None] = {path: File(data=data) for path, data in work.items()}
    changed = {p: file for p, file in after.items() if before.get(p) != file}
    return unified(before, Patch(files=changed | {p: None for p in before if p not in after}))


def _file(path: str, before: File | None, after: File | None) -> str:
    old, new = _quoted(f"a/{path}"), _quoted(f"b/{path}")
    lines = [f"diff --git {old} {new}\n", *_modes(before, after)]
    data = [file.data if file else b"" for file in (before, after)]
    if data[0] == data[1]:
        return "".join(lines)
    names = [old if before else "/dev/null", new if after else "/dev/null"]
    texts = [_text(part) for part in data]
    if None in texts:
        return "".join([*lines, f"Binary files {names[0]} and {names[1]} differ\n"])
    # git ends a name with a tab where it would not know otherwise.
    ends = ["\t" if " " in name else "" for name in names]
    lines += [f"--- {names[0]}{ends[0]}\n", f"+++ {names[1]}{ends[1]}\n"]
    return "".join([*lines, *_hunks(*(_lines(text or "") for text in texts))])


def _modes(before: File | None, after: File | None) -> Iterator[str]:
    if before is None and after is not None:
        yield f"new file mode {_mode(after)}\n"
    elif after is None and before is not None:
        yield f"deleted file mode {_mode(before)}\n"
    elif before and after and before.executable != after.executable:
        yield f"old mode {_mode(before)}\nnew mode {_mode(after)}\n"


def _mode(file: File) -> str:
    return "100755" if file.executable else "100644"


def _text(data: bytes) -> str | None:
    """The text of a file; None where git, too, would call it binary, and where it is not UTF-8."""
    try:
        return None if b"\0" in data else data.decode()
    except UnicodeDecodeError:
        return None


def _lines(text: str) -> list[str]:
    """Lines with their ends, split at line feeds alone."""
    lines = [f"{line}\n" for line in text.split("\n")]
    last = lines.pop()
    return [*lines, f"{last}\\ No newline at end of file\n"] if last != "\n" else lines


def _hunks(before: Sequence[str], after: Sequence[str]) -> Iterator[str]:
    head = 0
    while head < min(len(before), len(after)) and before[head] == after[head]:
        head += 1
    tail = 0
    while tail < min(len(before), len(after)) - head and before[-1 - tail] == after[-1 - tail]:
        tail += 1
    start = max(0, head - _CONTEXT)
    spared = max(0, tail - _CONTEXT)
    old, new = before[start : len(before) - spared], after[start : len(after) - spared]
    for group in _groups(old, new, head - start, tail - spared):
        first, last = group[0], group[-1]
        yield f"@@ -{_range(start, first[1], last[2])} +{_range(start, first[3], last[4])} @@\n"
        for tag, i1, i2, j1, j2 in group:
            if tag == "equal":
                yield from (f" {line}" for line in old[i1:i2])
                continue
            yield from (f"-{line}" for line in old[i1:i2])
            yield from (f"+{line}" for line in new[j1:j2])


def _groups(
    old: Sequence[str], new: Sequence[str], head: int, tail: int
) -> Sequence[Sequence[tuple[str, int, int, int, int]]]:
    """What ``SequenceMatcher`` says of the hunks, or one hunk that replaces all in between."""
    if len(old) * len(new) <= _MAX_PRODUCT:
        return list(SequenceMatcher(None, old, new).get_grouped_opcodes(_CONTEXT))
    n, m = len(old), len(new)
    group = [("equal", 0, head, 0, head), ("replace", head, n - tail, head, m - tail)]
    return [[*group, ("equal", n - tail, n, m - tail, m)]]


def _range(offset: int, start: int, stop: int) -> str:
    count = stop - start
    return f"{offset + start + (1 if count else 0)},{count}"


def _quoted(path: str) -> str:
    """A name as git writes it: in quotes where it has some, backslashes or control characters."""
    if not any(char < " " or char in '"\\\x7f' for char in path):
        return path
    octal = (f"\\{ord(c):03o}" if c < " " or c in '"\\\x7f' else c for c in path)
    return f'"{"".join(octal)}"'
