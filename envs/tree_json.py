"""Trees in JSON rows: the field ``tree`` of the format ``jsonl:PATH``.

A file is its text, or an object with ``text`` or ``base64`` and, if need be, ``executable``::

    {"files": {"src/a.py": "x = 1\\n", "run.sh": {"text": "#!/bin/sh\\n", "executable": true},
               "logo.png": {"base64": "iVBORw0KGgo="}},
     "work": ["src/*"]}

Or one commit of a repository on this machine, bare or not, without its history (``repository``)::

    {"repository": "/data/acme.git", "commit": "v1.2", "work": ["src/*"]}
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path

from palestra.envs.repository import one_commit
from palestra.envs.rows import BadRow, list_field, text_field
from palestra.rl.errors import UserError
from palestra.rl.types import File, Json, Tree


def tree_to_json(tree: Tree) -> dict[str, Json]:
    """The object of a tree; ``tree_from_json`` gives the same tree back."""
    files = {path: _file_to_json(file) for path, file in tree.files.items()}
    return {"files": files, "work": list(tree.work)}


def tree_from_json(value: Json) -> Tree:
    """A tree from its object; raises ``BadRow``."""
    if not isinstance(value, dict):
        raise BadRow("field tree: not an object")
    work = tuple(list_field(value, "work", optional=True)) or ("*",)
    if "repository" in value:
        return Tree(files=_committed(value), work=work)
    files = value.get("files")
    if not isinstance(files, dict):
        raise BadRow("field tree: needs a repository, or files, an object of path to text")
    found = {str(path): _file(str(path), item) for path, item in files.items()}
    return Tree(files=found, work=work)


def _committed(value: Mapping[str, Json]) -> Mapping[str, File]:
    repository, commit = text_field(value, "repository"), text_field(value, "commit")
    try:
        return one_commit(Path(repository), commit)
    except UserError as error:
        raise BadRow(f"field tree: {error}") from error


def _file_to_json(file: File) -> Json:
    try:
        text = file.data.decode()
    except UnicodeDecodeError:
        found: dict[str, Json] = {"base64": base64.b64encode(file.data).decode()}
    else:
        if not file.executable:
            return text
        found = {"text": text}
    return {**found, "executable": True} if file.executable else found


def _file(path: str, item: Json) -> File:
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise BadRow(f"field tree: {path!r} is not a path inside the task")
    fields: Mapping[str, Json] = item if isinstance(item, dict) else {"text": item}
    try:
        return File(data=_data(fields), executable=fields.get("executable") is True)
    except (TypeError, ValueError) as error:
        raise BadRow(f"field tree: {path!r} is neither text nor base64") from error


def _data(fields: Mapping[str, Json]) -> bytes:
    """Raises ``TypeError`` or ``ValueError`` where there is neither text nor base64."""
    text, coded = fields.get("text"), fields.get("base64")
    if isinstance(text, str):
        return text.encode()
    if isinstance(coded, str):
        return base64.b64decode(coded, validate=True)
    raise TypeError("no text")
