"""Rows of data files: read one at a time, with faults named by row and field."""

from __future__ import annotations

import gzip
import json
import re
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TextIO, cast

from palestra.rl.errors import UserError
from palestra.rl.types import Json

_CHUNK = 1 << 20
_BETWEEN = re.compile(r"[\s,]*")


class BadRow(Exception):
    """A row that gives no task; the text names the field."""


class Rows:
    """The rows of a file, in order and then again by their places; none is kept in memory.

    A place is a byte of the file itself where it is JSON lines, else of a temporary copy that is
    written as the rows are read.

    Example: ``rows = Rows(path); places = [place for _, place, _ in rows]; rows[places[0]]``
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._plain = path.suffix in (".jsonl", ".ndjson")
        try:
            self._file: IO[bytes] = path.open("rb") if self._plain else tempfile.TemporaryFile()
        except OSError as error:
            raise UserError(f"cannot read {path}: {error}") from error
        weakref.finalize(self, self._file.close)

    def __iter__(self) -> Iterator[tuple[int, int, Json | BadRow]]:
        """Number from 1, place, and the row or what is wrong with it; to be gone through once."""
        if self._plain:
            yield from self._lines()
            return
        place = 0
        for number, row in read_rows(self._path):
            line = b"" if isinstance(row, BadRow) else json.dumps(row, default=str).encode() + b"\n"
            self._file.seek(place)  # somebody may have asked for a row meanwhile
            self._file.write(line)
            yield number, place, row
            place += len(line)

    def __getitem__(self, place: int) -> Mapping[str, Json]:
        """The row at a place; raises ``UserError`` where the file has been changed meanwhile."""
        self._file.seek(place)
        try:
            return record(_parsed(self._file.readline()))
        except BadRow as error:
            raise UserError(f"{self._path} was changed while it was in use: {error}") from error

    def _lines(self) -> Iterator[tuple[int, int, Json | BadRow]]:
        number = place = 0
        while True:
            self._file.seek(place)  # somebody may have asked for a row meanwhile
            line = self._file.readline()
            if not line:
                return
            number += 1
            if line.strip():
                yield number, place, _parsed(line)
            place += len(line)


def read_rows(path: Path) -> Iterator[tuple[int, Json | BadRow]]:
    """Rows of a ``.jsonl``, ``.jsonl.gz``, ``.parquet`` or JSON-array file, numbered from 1.

    A line that is not JSON is a ``BadRow``. Raises ``UserError`` when the file cannot be read.
    """
    if path.suffix == ".parquet":
        from palestra.envs.parquet_rows import read_parquet

        yield from read_parquet(path)
        return
    try:
        with _open(path) as stream:
            if path.name.removesuffix(".gz").endswith(".json"):
                yield from enumerate(_array(path, stream), 1)
            else:
                yield from _lines(stream)
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from error


def text_field(row: Mapping[str, Json], *names: str) -> str:
    """The first of these fields, which must be a string; raises ``BadRow``."""
    for name in names:
        if name in row:
            return _text(row[name], f"field {name}")
    raise BadRow(f"field {' or '.join(names)}: missing")


def list_field(row: Mapping[str, Json], name: str, *, optional: bool = False) -> list[str]:
    """A list of strings; raises ``BadRow``."""
    value = row.get(name)
    if value is None and optional:
        return []
    if value is None:
        raise BadRow(f"field {name}: missing")
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise BadRow(f"field {name}: not a list of strings")
    return [_text(item, f"field {name}") for item in value]


def json_field(row: Mapping[str, Json], name: str) -> Json:
    """A field that holds JSON, or the text of it; None where it is missing or empty."""
    value = row.get(name)
    if not isinstance(value, str):
        return value
    if not value.strip():
        return None
    try:
        return cast(Json, json.loads(value))
    except (ValueError, RecursionError) as error:
        raise BadRow(f"field {name}: not JSON: {error}") from error


def record(row: Json | BadRow) -> Mapping[str, Json]:
    """A row that is a JSON object; raises ``BadRow``."""
    if isinstance(row, BadRow):
        raise row
    if not isinstance(row, dict):
        raise BadRow("not a JSON object")
    return row


def _text(value: Json, what: str) -> str:
    if not isinstance(value, str):
        raise BadRow(f"{what}: not a string")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadRow(f"{what}: not Unicode: {error.reason}") from error
    return value.replace("\r\n", "\n").replace("\r", "\n")


def _open(path: Path) -> TextIO:
    if path.name.endswith(".gz"):
        return cast(TextIO, gzip.open(path, "rt", encoding="utf-8"))
    return path.open(encoding="utf-8")


def _parsed(line: str | bytes) -> Json | BadRow:
    try:
        return cast(Json, json.loads(line))
    except (ValueError, RecursionError) as error:
        return BadRow(f"not JSON: {error}")


def _lines(stream: TextIO) -> Iterator[tuple[int, Json | BadRow]]:
    for number, line in enumerate(stream, 1):
        if line.strip():
            yield number, _parsed(line)


def _array(path: Path, stream: TextIO) -> Iterator[Json]:
    """The items of a JSON array, one at a time; of the text no more than a part is held."""
    decoder = json.JSONDecoder()
    text, at, wanted = stream.read(_CHUNK), 0, _CHUNK
    if not text.lstrip().startswith("["):
        raise UserError(f"{path} is not a JSON array of rows")
    at = text.index("[") + 1
    while True:
        at = _BETWEEN.match(text, at).end()  # type: ignore[union-attr]
        problem: Exception | None = None
        try:
            item, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            problem, end = error, len(text)
        if end < len(text):  # a number at the very end may go on in the next part
            yield item
            at, wanted = end, _CHUNK
        elif more := stream.read(wanted):
            text, at, wanted = text[at:] + more, 0, 2 * wanted
        elif text[at:].strip() == "]":
            return
        else:
            raise UserError(f"{path} is not JSON: {problem or 'the array does not end'}")
