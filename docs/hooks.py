"""What MkDocs is told of our pages, which are written to be read on a forge as well."""

from __future__ import annotations

import re
from typing import Any

OUTSIDE = re.compile(r"\[([^\]]*)\]\(\.\./([^)\s]*)\)")
"""A link from a page to a file of the repository that is no page."""

EXECUTED = re.compile(r"^```python run$", re.MULTILINE)
"""How a block begins that the tests run."""

ROW = re.compile(r"^\|.*$", re.MULTILINE)
CODE = re.compile(r"`[^`]*`")


def on_page_markdown(markdown: str, *, config: Any, **_: Any) -> str:
    """Let links to files lead to ``extra.sources``, or be text where that is empty."""
    sources = config.extra["sources"]
    link = rf"[\1]({sources}\2)" if sources else r"\1"
    return EXECUTED.sub("```python", ROW.sub(_bare_bars, OUTSIDE.sub(link, markdown)))


def _bare_bars(row: re.Match[str]) -> str:
    """Bars in the code of a table: a forge wants them escaped, MkDocs would show the escape."""
    return CODE.sub(lambda code: code[0].replace(r"\|", "|"), row[0])
