"""Files of a tree that are read when somebody looks, and forgotten when others were looked at.

A source may have hundreds of trees of tens of megabytes: what holds a tree is how to get it again.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path

from palestra.envs.tree_json import tree_from_json, tree_to_json
from palestra.rl.types import File, Tree


class LazyFiles(Mapping[str, File]):
    """The files that ``load`` gives, which is asked each time and has to remember what pays.

    Example: ``LazyFiles(partial(one_commit, Path("/data/acme.git"), "v1.2"))``
    """

    def __init__(self, load: Callable[[], Mapping[str, File]]) -> None:
        self._load = load

    def __repr__(self) -> str:
        return repr(dict(self._load()))

    def __getitem__(self, path: str) -> File:
        return self._load()[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._load())

    def __len__(self) -> int:
        return len(self._load())


def digest(files: Mapping[str, File]) -> str:
    """Equal for equal files, for a key of ``kept_files``: names of commits and images may move."""
    found = hashlib.sha256()
    for path, file in sorted(files.items()):
        found.update(repr((path, file.executable, len(file.data))).encode(errors="replace"))
        found.update(file.data)
    return found.hexdigest()


async def kept_files(
    cache: Path | None, key: str, make: Callable[[], Awaitable[Mapping[str, File]]]
) -> Mapping[str, File]:
    """What ``make`` gives, made once per ``key`` and kept below ``cache``; in memory without."""
    if cache is None:
        return await make()
    path = cache / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json.gz"
    if not path.is_file():
        _store(path, await make())
    return LazyFiles(partial(_stored, path))


def _store(path: Path, files: Mapping[str, File]) -> None:
    """All at once: another process may read it at any time."""
    data = gzip.compress(json.dumps(tree_to_json(Tree(files=files))).encode(), 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(data)
    Path(file.name).rename(path)


@lru_cache(maxsize=16)
def _stored(path: Path) -> Mapping[str, File]:
    return tree_from_json(json.loads(gzip.decompress(path.read_bytes()))).files
