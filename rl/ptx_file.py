"""A file of chats or texts as supervised samples; however long it is, memory holds a few bytes of
each row.

The file is read once: rows that are well formed are copied to an unnamed file, from which any of
them is read and tokenised when a step draws it. The rows are untrusted: what a row says cannot
become a control token, and a row that is no good is named, skipped and counted.
"""

from __future__ import annotations

import json
import os
import tempfile
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from palestra.envs.chat_rows import chat_or_text
from palestra.envs.parquet_rows import read_parquet
from palestra.envs.rows import BadRow, read_rows, record
from palestra.rl.errors import UserError
from palestra.rl.types import Json, Sample
from palestra.rollout.dialects import Inexpressible
from palestra.rollout.tokens import Chat, supervised

FIELDS = ("messages", "text")
SHOWN = 5


class PtxFile:
    """The well-formed rows of a file; ``folder`` is where the copy lies. ``say`` is told of the
    first bad rows. Raises ``UserError`` when the file cannot be read, or no row is good."""

    def __init__(self, path: Path, *, folder: Path, say: Callable[[str], None]) -> None:
        self.path = path
        self.left_out = 0
        self._say = say
        self._numbers = array("Q")
        self._ends = array("Q", [0])
        self._bad: set[int] = set()
        try:
            self._copy = tempfile.TemporaryFile(dir=folder)
            self._read()
        except OSError as error:
            raise UserError(f"{path}: cannot be copied to {folder}: {error.strerror}") from error
        if not self._numbers:
            raise UserError(f"{path}: none of its {self.left_out} rows can be learned from")

    def _read(self) -> None:
        parquet = self.path.suffix == ".parquet"
        for number, row in read_parquet(self.path) if parquet else read_rows(self.path):
            try:
                data = _packed(record(row))
            except BadRow as error:
                self._leave_out(number, error)
                continue
            self._copy.write(data)
            self._numbers.append(number)
            self._ends.append(self._ends[-1] + len(data))
        self._copy.flush()

    def __len__(self) -> int:
        return len(self._numbers)

    def row(self, index: int) -> dict[str, Json]:
        """The fields of row ``index`` that are learned from."""
        start, end = self._ends[index], self._ends[index + 1]
        row: dict[str, Json] = json.loads(os.pread(self._copy.fileno(), end - start, start))
        return row

    def leave_out(self, index: int, error: BadRow) -> None:
        """Count row ``index`` among the bad ones, once, and name it."""
        if index not in self._bad:
            self._bad.add(index)
            self._leave_out(self._numbers[index], error)

    def _leave_out(self, number: int, error: BadRow) -> None:
        self.left_out += 1
        if self.left_out <= SHOWN:
            self._say(f"{self.path} row {number} left out: {error}")


@dataclass(frozen=True, slots=True)
class Rendered:
    """Implements ``rl.ptx.Rows``: a file's rows, tokenised as ``chat`` has it when they are drawn;
    ``max_tokens`` is the longest sample."""

    file: PtxFile
    chat: Chat
    max_tokens: int

    @property
    def left_out(self) -> int:
        """Rows of the file found to be no good so far."""
        return self.file.left_out

    def __len__(self) -> int:
        return len(self.file)

    def sample(self, index: int) -> Sample | None:
        """The sample of row ``index``; None for a row that turns out to be no good."""
        try:
            return self._sample(self.file.row(index))
        except BadRow as error:
            self.file.leave_out(index, error)
            return None

    def _sample(self, row: Mapping[str, Json]) -> Sample:
        what = chat_or_text(row)
        try:
            if isinstance(what, str):
                ids = self.chat.tokenizer.spell(what)
                sample = supervised(ids, [1.0] * len(ids))
            else:
                sample = self.chat.conversation(what)
        except (UserError, Inexpressible) as error:
            raise BadRow(f"field messages: {error}") from error
        if len(sample.token_ids) > self.max_tokens:
            field = "text" if isinstance(what, str) else "messages"
            raise BadRow(f"field {field}: {len(sample.token_ids)} tokens, above {self.max_tokens}")
        return sample


def _packed(row: Mapping[str, Json]) -> bytes:
    """The fields that are learned from as JSON; raises ``BadRow``."""
    chat_or_text(row)
    try:
        return json.dumps({name: row[name] for name in FIELDS if name in row}).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise BadRow(f"field messages: {error}") from error
