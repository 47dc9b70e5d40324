"""The site: built without a warning, whole in itself, and nothing of it from outside."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config

from palestra.rl import types

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(ROOT.glob("docs/*.md"))
ASSETS = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}
STYLE_URL = re.compile(r"@import\s+[\"']([^\"']+)|url\(\s*[\"']?([^\"')]+)")


@dataclass
class Html(HTMLParser):
    """What one built page has, links to and loads."""

    path: Path
    ids: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    assets: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids |= {given["id"]} if "id" in given else set()
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        if given.get(ASSETS.get(tag, "")):
            self.assets.append(given[ASSETS[tag]])
        assert "srcset" not in given and "http" not in given.get("style", "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Html]:
    """Every page of the built site by its path; without the page for wrong addresses."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "PALESTRA_SOURCES": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pages = set(folder.rglob("*.html")) - {folder / "404.html"}
    return {path: Html(path) for path in pages}


def target(page: Path, address: str) -> Path:
    """The file that an address without a host leads to."""
    found = page.parent / unquote(urlsplit(address).path)
    return (found / "index.html" if found.is_dir() else found).resolve()


def test_every_page_is_there(site: dict[Path, Html]) -> None:
    home = min(site, key=lambda path: len(path.parts))
    built = {path.relative_to(home.parent).as_posix() for path in site}
    assert built == {f"{p.stem}/index.html" for p in PAGES if p.stem != "index"} | {"index.html"}
    shown = {target(home, link) for link in site[home].links if not urlsplit(link).scheme}
    assert shown >= set(site), "a page is not in the navigation"


def test_links_and_anchors_lead_somewhere(site: dict[Path, Html]) -> None:
    broken = []
    for path, page in site.items():
        for link in page.links:
            if urlsplit(link).scheme in {"http", "https"}:
                continue
            address, anchor = urldefrag(link)
            file = target(path, address) if address else path
            ids = site[file].ids if file in site else set()
            if not file.exists() or (anchor and unquote(anchor) not in ids):
                broken.append(f"{path.parent.name}: {link}")
    assert broken == []


def test_nothing_is_loaded_from_outside(site: dict[Path, Html]) -> None:
    folder = min(site, key=lambda path: len(path.parts)).parent
    loaded = [(path, asset) for path, page in site.items() for asset in page.assets]
    for style in folder.rglob("*.css"):
        loaded += [
            (style, url) for pair in STYLE_URL.findall(style.read_text()) for url in pair if url
        ]
    assert len(loaded) > len(site)
    wrong = [
        f"{path.relative_to(folder)}: {asset[:80]}"
        for path, asset in loaded
        if not asset.startswith(("data:", "#"))
        and (urlsplit(asset).scheme or asset.startswith("//") or not target(path, asset).is_file())
    ]
    assert wrong == []


def test_the_api_page_has_every_noun(site: dict[Path, Html]) -> None:
    (ids,) = (page.ids for path, page in site.items() if path.parent.name == "api")
    nouns = {
        name
        for name, value in vars(types).items()
        if getattr(value, "__module__", "") == types.__name__
    }
    assert len(nouns) > 40 and {f"{types.__name__}.{name}" for name in nouns} <= ids


def test_a_page_that_is_wrong_breaks_the_build_and_files_are_linked_where_the_sources_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "lost.md").write_text("# In no navigation\n")
    (docs / "index.md").write_text(
        "# Home\n\n[dead](dead.md) [no anchor](lost.md#none) [`the loop`](../rl/train.py)\n\n"
        "| key |\n| --- |\n| `int \\| None` |\n\n```python run\nx = 1\n```\n"
    )
    config = load_config(
        str(ROOT / "mkdocs.yml"),
        docs_dir=str(docs),
        site_dir=str(tmp_path / "site"),
        nav=["index.md"],
        plugins=[],
        extra={"sources": "https://forge.example/blob/"},
    )
    with caplog.at_level(logging.WARNING, "mkdocs"):
        build(config)
    said = [record.getMessage() for record in caplog.records if record.name.startswith("mkdocs")]
    assert len(said) == 3, said
    assert all(any(what in line for line in said) for what in ("lost.md", "dead.md", "#none"))
    home = (tmp_path / "site/index.html").read_text()
    assert '<a href="https://forge.example/blob/rl/train.py"><code>the loop</code></a>' in home
    assert "<code>int | None</code>" in home
    assert "highlight" in home and "python run" not in home
