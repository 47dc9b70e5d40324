"""Tasks as JSON rows: the format ``jsonl:PATH``, one task per line.

A row has the fields of ``Task``; ``visible``, ``test_files``, ``labels`` and ``check_s`` may be
left out, and with a ``tree`` (``tree_json``), which is the agent's work then, ``files`` and
``artifacts`` too. ``image``, if there is one, has the ``name`` of a container image, its ``folder``
and ``env``. A check is an object with ``type`` ``call``, ``script``, ``unit``, ``suite``,
``program``, ``appended``, ``answer`` or ``verifier`` and the fields of that record::

    {"id": "add/1", "source": "acme", "kind": "repair", "prompt": "Fix add.py ...",
     "files": {"add.py": "def add(a, b):\\n    return a - b\\n"},
     "reference": {"add.py": "def add(a, b):\\n    return a + b\\n"},
     "artifacts": ["add.py"],
     "hidden": [{"type": "call", "id": "add#0", "module": "add", "function": "add",
                 "args": "(1, 2)", "expected": "3"}]}

``kind`` says which environment plays it: ``repair`` or ``complete``; for any other kind, ``source``
is the name of a registered environment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import PurePosixPath

from palestra.envs.rows import BadRow, list_field, text_field
from palestra.envs.tree_json import tree_from_json, tree_to_json
from palestra.rl.types import (
    AnswerCheck,
    AppendedCheck,
    CallCheck,
    Check,
    Image,
    Json,
    ProgramCheck,
    ScriptCheck,
    SuiteCheck,
    Task,
    UnitCheck,
    VerifierCheck,
)

_FIELDS = frozenset(Task.__dataclass_fields__)
_OPTIONAL = frozenset({"visible", "test_files", "labels", "tree", "check_s", "image"})
_REPLACED = frozenset({"files", "artifacts"})
_KINDS: Mapping[type, str] = {
    CallCheck: "call",
    ScriptCheck: "script",
    UnitCheck: "unit",
    SuiteCheck: "suite",
    ProgramCheck: "program",
    AppendedCheck: "appended",
    AnswerCheck: "answer",
    VerifierCheck: "verifier",
}


def task_to_json(task: Task) -> dict[str, Json]:
    """The row of a task; ``task_from_json`` gives the same task back."""
    row: dict[str, Json] = {
        name: getattr(task, name) for name in ("id", "source", "kind", "prompt")
    }
    for name in ("files", "reference", "test_files", "labels"):
        row[name] = dict(getattr(task, name))
    row["artifacts"] = list(task.artifacts)
    if task.check_s:
        row["check_s"] = task.check_s
    row["visible"] = [_check_to_json(check) for check in task.visible]
    row["hidden"] = [_check_to_json(check) for check in task.hidden]
    if task.tree is not None:
        row["tree"] = tree_to_json(task.tree)
        row = {name: value for name, value in row.items() if name not in _REPLACED}
    if task.image is not None:
        row["image"] = {**asdict(task.image), "scratch": list(task.image.scratch)}
    return row


def task_from_json(row: Mapping[str, Json]) -> Task:
    """A task from a row; raises ``BadRow`` naming the field."""
    for name in row:
        if name not in _FIELDS:
            raise BadRow(f"field {name}: unknown")
    tree = tree_from_json(row["tree"]) if row.get("tree") is not None else None
    for name in sorted(_FIELDS - _OPTIONAL - (_REPLACED if tree else set())):
        if name not in row:
            raise BadRow(f"field {name}: missing")
    if tree and (unfit := sorted(_REPLACED & row.keys())):
        raise BadRow(f"field {unfit[0]}: a task with a tree has none; its work is the tree")
    hidden = _checks(row, "hidden")
    if not hidden:
        raise BadRow("field hidden: empty")
    return Task(
        id=text_field(row, "id"),
        source=text_field(row, "source"),
        kind=text_field(row, "kind"),
        prompt=text_field(row, "prompt"),
        files=_files(row, "files"),
        reference=_files(row, "reference"),
        artifacts=tuple(
            _path("artifacts", name) for name in list_field(row, "artifacts", optional=bool(tree))
        ),
        visible=_checks(row, "visible"),
        hidden=hidden,
        test_files=_files(row, "test_files"),
        labels=_texts(row, "labels"),
        tree=tree,
        check_s=_number(row, "check_s"),
        image=_image(row["image"]) if row.get("image") is not None else None,
    )


def _check_to_json(check: Check) -> dict[str, Json]:
    fields = asdict(check)
    return {
        "type": _KINDS[type(check)],
        **{k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()},
    }


def _checks(row: Mapping[str, Json], name: str) -> tuple[Check, ...]:
    items = row.get(name, [])
    if not isinstance(items, list):
        raise BadRow(f"field {name}: not a list")
    found: list[Check] = []
    for number, item in enumerate(items):
        if not isinstance(item, dict):
            raise BadRow(f"field {name}[{number}]: not an object")
        try:
            found.append(_check(item))
        except BadRow as error:
            raise BadRow(f"field {name}[{number}]: {error}") from error
    if len({check.id for check in found}) != len(found):
        raise BadRow(f"field {name}: two checks have the same id")
    return tuple(found)


def _image(value: Json) -> Image:
    if not isinstance(value, dict) or value.keys() - {"name", "folder", "env", "scratch"}:
        raise BadRow("field image: not an object of name, folder, env and scratch")
    folder = text_field({"folder": "", **value}, "folder")
    return Image(
        name=text_field(value, "name"),
        folder=folder,
        env=_texts(value, "env"),
        scratch=tuple(list_field(value, "scratch", optional=True)),
    )


def _check(item: Mapping[str, Json]) -> Check:
    kind, identity = item.get("type"), text_field(item, "id")
    if kind == "unit":
        return UnitCheck(id=identity)
    if kind == "suite":
        return SuiteCheck(id=identity, django=text_field({"django": "", **item}, "django"))
    if kind == "answer":
        return AnswerCheck(
            id=identity,
            verifier=text_field(item, "verifier"),
            expected=text_field(item, "expected"),
            path=_path("path", text_field(item, "path")) if "path" in item else "answer.txt",
        )
    module = text_field(item, "module") if kind in ("call", "script") else ""
    if kind == "call":
        return CallCheck(
            id=identity,
            module=module,
            function=text_field(item, "function"),
            args=text_field(item, "args"),
            expected=text_field(item, "expected"),
        )
    if kind == "script":
        names = tuple(list_field(item, "names"))
        return ScriptCheck(id=identity, module=module, names=names, code=text_field(item, "code"))
    if kind == "verifier":
        seconds = _number({"timeout": 600.0, **item}, "timeout")
        script, env = text_field(item, "script"), _texts(item, "env")
        return VerifierCheck(id=identity, script=script, timeout=seconds, env=env)
    if kind not in ("program", "appended"):
        raise BadRow(f"field type: not {', '.join(_KINDS.values())}")
    argv = tuple(list_field(item, "argv"))
    if not argv:
        raise BadRow("field argv: empty")
    if kind == "program":
        return _program_check(item, identity, argv)
    return AppendedCheck(
        id=identity,
        argv=argv,
        path=_path("path", text_field(item, "path")),
        code=text_field(item, "code"),
        wrong=text_field(item, "wrong"),
        done=text_field(item, "done"),
    )


def _program_check(item: Mapping[str, Json], identity: str, argv: tuple[str, ...]) -> ProgramCheck:
    expected = tuple(list_field(item, "expected"))
    if not expected:
        raise BadRow("field expected: empty")
    return ProgramCheck(
        id=identity,
        argv=argv,
        stdin=text_field(item, "stdin"),
        expected=expected,
        tolerance=_number(item, "tolerance"),
        by_line=item.get("by_line") is True,
    )


def _number(row: Mapping[str, Json], name: str) -> float:
    value = row.get(name, 0.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e6:
        raise BadRow(f"field {name}: not a number that is 0 or more")
    return float(value)


def _files(row: Mapping[str, Json], name: str) -> dict[str, str]:
    return {_path(name, path): text for path, text in _texts(row, name).items()}


def _path(name: str, path: str) -> str:
    parts = PurePosixPath(path)
    if not path or parts.is_absolute() or ".." in parts.parts:
        raise BadRow(f"field {name}: {path!r} is not a path inside the task")
    return path


def _texts(row: Mapping[str, Json], name: str) -> dict[str, str]:
    value = row.get(name, {})
    if not isinstance(value, dict):
        raise BadRow(f"field {name}: not an object of strings")
    texts: dict[str, str] = {}
    for key, text in value.items():
        if not isinstance(text, str):
            raise BadRow(f"field {name}: {key!r} is not a string")
        texts[key] = text
    return texts
