"""Tokens as text, with the tokenizer that a run itself has saved."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TokenText: TypeAlias = Callable[[int], str]
"""The text of one token id."""
TokenPieces: TypeAlias = Callable[[Sequence[int]], list[str]]
"""The pieces of a text that a sequence of ids is, one per id: a character that several tokens make
up stands at the last of them, the others are empty."""


def tokenizer_files(run: Path) -> list[Path]:
    """The tokenizers below a run's folder, the newest first."""

    def written(path: Path) -> float:
        try:
            return path.stat().st_mtime
        except OSError:  # pruned meanwhile
            return 0.0

    return sorted(run.rglob("tokenizer.json"), key=written, reverse=True)


def load_tokenizer(files: Iterable[Path]) -> Tokenizer | None:
    """The first that can be loaded."""
    from tokenizers import Tokenizer

    for path in files:
        try:
            return Tokenizer.from_file(str(path))
        except Exception:  # noqa: BLE001 - the library raises plain Exception on a bad file
            continue
    return None


def pieces(tokenizer: Tokenizer) -> TokenPieces:
    """Decodes sequences of ids of this tokenizer."""
    from tokenizers.decoders import DecodeStream

    def decode(ids: Sequence[int]) -> list[str]:
        stream = DecodeStream(skip_special_tokens=False)
        return [stream.step(tokenizer, token_id) or "" for token_id in ids]

    return decode
