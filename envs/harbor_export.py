"""Tasks written as Harbor task directories: ``palestra tasks export SOURCE --format harbor``.

A directory says its checks twice: ``tests/task.json`` is the task as ``jsonl:`` has it, which
``harbor:DIR`` reads and our grader judges as before; ``tests/test.sh`` grades it where palestra is
not installed.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path

import tomli_w

from palestra.envs.harbor import EXPORTED
from palestra.envs.task_json import task_to_json
from palestra.rl.errors import UserError
from palestra.rl.types import CallCheck, File, ScriptCheck, SuiteCheck, Task, UnitCheck

FOLDER = "/workspace"
_IMAGE = "python:3.12-slim"
_KNOWN = (CallCheck, ScriptCheck, UnitCheck, SuiteCheck)
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_TEST = "#!/bin/bash\ncd {folder} && python3 /tests/grade.py\n"


def export(tasks: Iterable[Task], out: Path) -> list[Path]:
    """Write a directory per task below ``out``, which must be new or empty; returns them.

    Raises ``UserError`` where it is not, or cannot be written to, and for a task that the format
    cannot say.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out}: there is something already; name a new folder")
    made: dict[Path, str] = {}
    for task in tasks:
        folder = out / _name(task.id)
        if folder in made:
            raise UserError(f"tasks {made[folder]!r} and {task.id!r} would have the same folder")
        made[folder] = task.id
        try:
            _write(folder, task_directory(task))
        except OSError as error:
            raise UserError(f"--out {out}: {error.strerror}") from error
    return list(made)


def _write(folder: Path, content: Mapping[str, File]) -> None:
    for path, file in content.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(file.data)
        place.chmod(0o755 if file.executable else 0o644)


def task_directory(task: Task) -> dict[str, File]:
    """The files of a task's directory by path; raises ``UserError`` for one with a check that
    ``harbor_grade`` does not know."""
    for check in task.hidden:
        if not isinstance(check, _KNOWN):
            raise UserError(f"{task.id}: a {type(check).__name__} cannot be exported")
    folder = (task.image.folder if task.image else "") or FOLDER
    start = dict(task.tree.files) if task.tree else {p: _file(t) for p, t in task.files.items()}
    for path in [*start, *task.reference]:
        if any(part in ("", ".", "..") for part in path.split("/")):
            raise UserError(f"{task.id}: {path!r} is not a path inside the task")
    texts = {
        "task.toml": tomli_w.dumps(_toml(task, folder)),
        "instruction.md": f"{task.prompt}\n",
        "environment/Dockerfile": _dockerfile(task, folder, start),
        "tests/task.json": json.dumps(task_to_json(task)),
        "tests/test.sh": _TEST.format(folder=shlex.quote(folder)),
        "tests/grade.py": (files("palestra.envs") / "harbor_grade.py").read_text(encoding="utf-8"),
        "solution/solve.sh": _solution(task.reference),
    }
    return {
        **{path: _file(text) for path, text in texts.items()},
        **{f"environment/files/{path}": file for path, file in start.items()},
    }


def _toml(task: Task, folder: str) -> dict[str, object]:
    image = {"docker_image": task.image.name} if task.image and task.image.name else {}
    return {
        "schema_version": "1.1",
        "task": {"name": f"palestra/{_name(task.id)}"},
        "metadata": {EXPORTED: {"id": task.id}},
        "verifier": {"timeout_sec": 60.0 * max(1, len(task.hidden))},
        "environment": {"workdir": folder, "allow_internet": False, **image},
    }


def _dockerfile(task: Task, folder: str, start: Mapping[str, File]) -> str:
    image = task.image.name if task.image and task.image.name else _IMAGE
    copy = "COPY files/ ./\n" if start else ""
    return f"FROM {image}\nWORKDIR {folder}\n{copy}"


def _solution(reference: Mapping[str, str]) -> str:
    lines = ["#!/bin/bash", "set -e"]
    for path, text in reference.items():
        name = shlex.quote(path)
        coded = base64.b64encode(text.encode()).decode()
        lines += [f'mkdir -p "$(dirname {name})"', f"base64 -d > {name} <<'END'", coded, "END"]
        lines += [f"chmod +x {name}"] if text.startswith("#!") else []
    return "\n".join([*lines, ""])


def _file(text: str) -> File:
    return File(data=text.encode(errors="replace"), executable=text.startswith("#!"))


def _name(identity: str) -> str:
    return _UNSAFE.sub("-", identity).strip("-.")[:100] or "task"
