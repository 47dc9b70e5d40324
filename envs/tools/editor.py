"""The editor: tools that show and change files by exact text, for policies and their authors.

Paths are relative to the work folder and go through no link. Files are changed as bytes: what is
not UTF-8 in them stays as it is, and so does the mode bit. An author composes tools and answers::

    tools = (BASH, *EDITOR, SUBMIT)
    ...
    return await edit(name, arguments, box)

The box keeps what ``undo_edit`` needs, below ``.git``, which is never part of the work. An agent
that tampers with it harms nobody but itself.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from palestra.envs.arguments import ToolError, tool
from palestra.envs.tools.observed import MAX_SHOWN, observed
from palestra.rl.errors import PathRefused
from palestra.rl.types import Json, Observation, Sandbox, Tool

MAX_BYTES = 1 << 20
"""Bytes of the largest file that is shown or changed; a patch may bring no larger one."""

_PATH = "string: a file, relative to the work folder"
VIEW = tool(
    "view",
    "Show the lines of a file with their numbers, or what is in a folder.",
    path="string: a file or a folder, relative to the work folder, which is .",
    start_line="integer?: the first line to show, counted from 1",
    end_line="integer?: the last line to show",
)
CREATE_FILE = tool(
    "create_file",
    "Make a new file. A file that is there already is not replaced.",
    path=_PATH,
    file_text="string: the whole file",
)
STR_REPLACE = tool(
    "str_replace",
    "Replace a text that a file holds exactly once.",
    path=_PATH,
    old_str="string: the text, with its white space and without line numbers",
    new_str="string: what takes its place",
)
INSERT = tool(
    "insert",
    "Insert lines into a file.",
    path=_PATH,
    insert_line="integer: the line after which they come; 0 is the top of the file",
    insert_text="string: the lines",
)
UNDO_EDIT = tool(
    "undo_edit",
    "Take back the last str_replace or insert of a file that was not changed since.",
    path=_PATH,
)
EDITOR: tuple[Tool, ...] = (VIEW, CREATE_FILE, STR_REPLACE, INSERT, UNDO_EDIT)

_AROUND = 3
_PLACES = 10
_THERE = '[ -e "$1" ] || [ -L "$1" ]'
_EXECUTABLE = '[ -x "$1" ]'
_LIST = """\
top=$(pwd -P) && cd -P "./$1" && { [ "$1" = . ] || [ "$(pwd -P)" = "$top/$1" ]; } &&
LC_ALL=C exec ls -1Ap"""


async def edit(name: str, arguments: Mapping[str, Json], box: Sandbox) -> Observation:
    """Answer a call of a tool of ``EDITOR``; the arguments fit its schema.

    Raises ``ToolError`` and ``PathRefused`` with what the policy is told.
    """
    # Here, because later on halves of surrogate pairs stand for bytes that are not UTF-8.
    try:
        "".join(map(str, arguments.values())).encode()
    except UnicodeEncodeError as error:
        raise ToolError("an argument has characters that cannot be written") from error
    path = str(arguments["path"])
    if not _is_plain(path):
        raise ToolError(f"{path!r}: give a path relative to the work folder, such as src/main.py")
    return await _COMMANDS[name](box, **arguments)


async def view(
    box: Sandbox, path: str, start_line: int = 1, end_line: int | None = None
) -> Observation:
    """Numbered lines of a file (the last is the file's where ``end_line`` is beyond it), or the
    names in a folder, hidden ones included, those of folders with a slash."""
    try:
        lines = _lines(await _text(box, path))
    except PathRefused:
        listing = await _listing(box, path)
        if listing is None:
            raise
        return listing
    end = len(lines) if end_line is None else min(end_line, len(lines))
    if not lines:
        return Observation(text="(an empty file)")
    if not 1 <= start_line <= end:
        raise ToolError(f"{path} has the lines 1 to {len(lines)}: choose some of them")
    return observed(_numbered(lines, start_line, end))


async def create_file(box: Sandbox, path: str, file_text: str) -> Observation:
    """Make a file that is not there yet; folders are made as needed."""
    if await _holds(box, _THERE, path):
        raise ToolError(f"{path} is there already: change it with str_replace or insert")
    await box.write(path, _bounded(path, file_text.encode()))
    return Observation(text=f"made {path}")


async def str_replace(box: Sandbox, path: str, old_str: str, new_str: str) -> Observation:
    """Replace the only place of ``old_str``; places may overlap."""
    text = await _text(box, path)
    if old_str in ("", new_str):
        raise ToolError("old_str must be a text that differs from new_str")
    places = _places(text, old_str)
    if not places:
        hint = " (its lines end with \\r\\n)" if "\r\n" in text and "\n" in old_str else ""
        raise ToolError(f"{path} does not hold old_str{hint}: view the file, and copy exactly")
    if len(places) > 1:
        many = f"{_PLACES} places or more" if len(places) == _PLACES else f"{len(places)} places"
        at = ", ".join(str(_line_of(text, place)) for place in places)
        raise ToolError(f"{path} holds old_str in {many}, from lines {at}: take in more around one")
    (place,) = places
    after = text[:place] + new_str + text[place + len(old_str) :]
    await _save(box, path, text, after)
    return _changed(path, after, _line_of(text, place), new_str.count("\n") + 1)


async def insert(box: Sandbox, path: str, insert_line: int, insert_text: str) -> Observation:
    """Insert whole lines; whether the file ends with a line break stays as it is."""
    text = await _text(box, path)
    lines, new = _lines(text), insert_text.removesuffix("\n").split("\n")
    if not 0 <= insert_line <= len(lines):
        raise ToolError(f"{path}: insert_line must be from 0 to {len(lines)}")
    ending = "\n" if text == "" or text.endswith("\n") else ""
    after = "\n".join([*lines[:insert_line], *new, *lines[insert_line:]]) + ending
    await _save(box, path, text, after)
    return _changed(path, after, insert_line + 1, len(new))


async def undo_edit(box: Sandbox, path: str) -> Observation:
    """Put back what the last edit found, if the file is as that edit left it."""
    now = await box.read(path, max_bytes=MAX_BYTES)
    before = await _before(box, path, now)
    if before is None:
        raise ToolError(f"{path}: there is no edit to undo, or it was changed since")
    await _put(box, path, before)
    return Observation(text=f"{path} is as it was before its last edit")


_COMMANDS: Mapping[str, Callable[..., Awaitable[Observation]]] = {
    "view": view,
    "create_file": create_file,
    "str_replace": str_replace,
    "insert": insert,
    "undo_edit": undo_edit,
}


def _is_plain(path: str) -> bool:
    parts = () if path == "." else path.split("/")
    return not {"", ".", ".."}.intersection(parts) and "\0" not in path


async def _text(box: Sandbox, path: str) -> str:
    data = await box.read(path, max_bytes=MAX_BYTES)
    if b"\0" in data:
        raise ToolError(f"{path} is a binary file of {len(data)} bytes")
    return data.decode(errors="surrogateescape")


def _bounded(path: str, data: bytes) -> bytes:
    if len(data) > MAX_BYTES:
        raise ToolError(f"{path} would be larger than {MAX_BYTES} bytes")
    return data


async def _save(box: Sandbox, path: str, before: str, after: str) -> None:
    data = _bounded(path, after.encode(errors="surrogateescape"))
    # Packed, so that no search of the work folder finds the old text. First, so that no edit that
    # is told to have failed was made.
    packed = zlib.compress(before.encode(errors="surrogateescape"), level=1)
    with suppress(PathRefused):  # without it, there is no edit to undo
        await box.write(_kept(path), _digest(data) + packed)
    await _put(box, path, data)


async def _put(box: Sandbox, path: str, data: bytes) -> None:
    executable = {path} if await _holds(box, _EXECUTABLE, path) else frozenset[str]()
    await box.put({path: data}, executable=executable)


async def _before(box: Sandbox, path: str, now: bytes) -> bytes | None:
    """What ``_save`` kept when it made the file what it is ``now``, if it did."""
    unpacking, digest = zlib.decompressobj(), _digest(now)
    with suppress(PathRefused, zlib.error):
        kept = await box.read(_kept(path), max_bytes=2 * MAX_BYTES)
        if kept.startswith(digest):
            before = unpacking.decompress(kept.removeprefix(digest), MAX_BYTES)
            return before if unpacking.eof else None
    return None


def _kept(path: str) -> str:
    return f".git/palestra-undo/{_digest(path.encode()).hex()}"


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


async def _holds(box: Sandbox, condition: str, path: str) -> bool:
    ended = await box.exec(["/bin/sh", "-c", condition, "sh", path])
    if ended.exit_code not in (0, 1):
        raise ToolError(f"{path}: no command can be run in the box to look at it")
    return ended.exit_code == 0


async def _listing(box: Sandbox, path: str) -> Observation | None:
    """What is in a folder; None where there is none, or only through a link."""
    ended = await box.exec(["/bin/sh", "-c", _LIST, "sh", path], max_output=4 * MAX_SHOWN)
    if ended.exit_code != 0:
        return None
    return observed(ended.stdout or b"(an empty folder)", lost=ended.elided)


def _lines(text: str) -> list[str]:
    return text.removesuffix("\n").split("\n") if text else []


def _numbered(lines: list[str], start: int, end: int) -> bytes:
    chosen = enumerate(lines[start - 1 : end], start)
    return "\n".join(f"{n:6}\t{line}" for n, line in chosen).encode(errors="surrogateescape")


def _places(text: str, wanted: str) -> list[int]:
    """Where ``wanted`` begins: the first places, at most ``_PLACES``."""
    found: list[int] = []
    place = text.find(wanted)
    while place >= 0 and len(found) < _PLACES:
        found.append(place)
        place = text.find(wanted, place + 1)
    return found


def _line_of(text: str, place: int) -> int:
    return text.count("\n", 0, place) + 1


def _changed(path: str, text: str, first: int, count: int) -> Observation:
    lines = _lines(text)
    start, end = max(1, first - _AROUND), min(len(lines), first + count - 1 + _AROUND)
    return observed(f"changed {path}:\n".encode() + _numbered(lines, start, end))
