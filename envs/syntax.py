"""Parsing other people's programs without Python's warnings about them on our terminal."""

from __future__ import annotations

import ast
import warnings


def parse(text: str) -> ast.Module:
    """The syntax tree of a text; raises ``SyntaxError`` or ``ValueError`` for one that has none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(text)
        except (RecursionError, MemoryError) as error:
            raise ValueError(f"nested too deeply: {error}") from error
