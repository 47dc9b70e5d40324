"""Rows of a Parquet file, some at a time: a large file is never in memory as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from palestra.envs.rows import BadRow
from palestra.rl.errors import UserError
from palestra.rl.types import Json

BATCH = 256
BUFFER = 1 << 16


def read_parquet(path: Path) -> Iterator[tuple[int, Json | BadRow]]:
    """Rows with their numbers from 1, columns by name; one that cannot be decoded is a ``BadRow``.

    Raises ``UserError`` when the file cannot be read.
    """
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(path, buffer_size=BUFFER, pre_buffer=False) as file:
            for batch in file.iter_batches(batch_size=BATCH, use_threads=False):
                for index in range(batch.num_rows):
                    number += 1
                    yield number, _row(batch, index)
    except (OSError, pyarrow.ArrowException) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"cannot read {path} as Parquet after row {number}: {reason}") from error


def _row(batch: Any, index: int) -> Json | BadRow:
    row: dict[str, Json] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            row[name] = column[index].as_py()
        except (ValueError, OverflowError) as error:
            return BadRow(f"field {name}: {error}")
    return row
