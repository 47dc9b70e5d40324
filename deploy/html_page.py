"""One HTML file that stands alone: no script, nothing loaded from elsewhere, every text escaped."""

from __future__ import annotations

import html
from pathlib import Path

from palestra.deploy.atomic import write_text
from palestra.deploy.text import clean
from palestra.rl.errors import UserError

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  color: #1c2329; background: #fff }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2.5rem; border-bottom: 1px solid #ccd }
pre { font: 13px/1.45 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere;
  margin: .2rem 0 .8rem; padding: .5rem .7rem; background: #f5f6f8; border-radius: 4px }
pre.call { background: #e9f1fb } pre.error { background: #fdeceb } pre.tokens { background: #fff;
  border: 1px solid #dde }
table { border-collapse: collapse } td, th { padding: .15rem .9rem .15rem 0; text-align: left }
.what { color: #5b6770; font-size: .85rem } details { margin: .6rem 0 }
summary { cursor: pointer; font-weight: 600 } .good { color: #1d6b3c } .bad { color: #a3281f }
"""

POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def document(title: str, body: str) -> str:
    """A whole document; ``title`` and ``body`` are HTML already."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def check_place(path: Path) -> None:
    """Raises ``UserError`` where no page can be written: better said before the work than after."""
    if path.is_dir():
        raise UserError(f"--html {path}: is a folder; name a file")
    if not path.absolute().parent.is_dir():
        raise UserError(f"--html {path}: there is no such folder")


def write(path: Path, page: str) -> None:
    """Write a page, whole or not at all; raises ``UserError``."""
    check_place(path)
    try:
        write_text(path, page)
    except OSError as error:
        raise UserError(f"--html {path}: {error.strerror}") from error


def escaped(text: str) -> str:
    """Text that somebody else wrote, as HTML; control characters are gone."""
    return html.escape(clean(text), quote=True)
