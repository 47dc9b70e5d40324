"""Rows of data files: read one at a time, with faults named by row and field."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TextIO, cast

from palestra.rl.errors import UserError
from palestra.rl.types import Json


class BadRow(Exception):
    """A row that gives no task; the text names the field."""


def read_rows(path: Path) -> Iterator[tuple[int, Json | BadRow]]:
    """Rows of a ``.jsonl``, ``.jsonl.gz`` or JSON-array file with their numbers from 1.

    A line that is not JSON is a ``BadRow``. Raises ``UserError`` when the file cannot be read.
    """
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
            value = row[name]
            if not isinstance(value, str):
                raise BadRow(f"field {name}: not a string")
            return value.replace("\r\n", "\n").replace("\r", "\n")
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
    return [str(item).replace("\r\n", "\n") for item in value]


def record(row: Json | BadRow) -> Mapping[str, Json]:
    """A row that is a JSON object; raises ``BadRow``."""
    if isinstance(row, BadRow):
        raise row
    if not isinstance(row, dict):
        raise BadRow("not a JSON object")
    return row


def _open(path: Path) -> TextIO:
    if path.name.endswith(".gz"):
        return cast(TextIO, gzip.open(path, "rt", encoding="utf-8"))
    return path.open(encoding="utf-8")


def _lines(stream: TextIO) -> Iterator[tuple[int, Json | BadRow]]:
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, BadRow(f"not JSON: {error}")


def _array(path: Path, stream: TextIO) -> list[Json]:
    try:
        rows = json.load(stream)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    if not isinstance(rows, list):
        raise UserError(f"{path} is not a JSON array of rows")
    return rows
