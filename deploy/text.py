"""Text from models and sandboxes made safe to print; such text is never trusted."""

from __future__ import annotations

import re
import unicodedata

# CSI and OSC/DCS/SOS/PM/APC sequences, whole; their single control characters go afterwards.
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]"
)


def clean(text: str) -> str:
    """``text`` without terminal escapes and control characters; line feeds and tabs stay.

    Also drops what makes text look different from what it is: direction overrides, zero-width
    characters and lone surrogates.
    """
    text = _ESCAPES.sub("", text).replace("\r\n", "\n")
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c)[0] != "C")


def one_line(text: str) -> str:
    """Clean text on one line, with line feeds and tabs made visible."""
    return clean(text.replace("\r\n", "\n")).replace("\n", "\\n").replace("\t", "\\t")
