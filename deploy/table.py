"""Rows of text in aligned columns, for terminals, logs and files alike."""

from __future__ import annotations

from collections.abc import Sequence

from palestra.deploy.text import one_line


def aligned(rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset()) -> list[str]:
    """One line per row; the columns in ``right`` are flush right. Texts may be untrusted.

    Example: ``aligned([("a", "b"), ("long", "c")]) == ["a     b", "long  c"]``
    """
    cells = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
