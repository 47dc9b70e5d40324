"""A task directory read as data: regular files within limits, and ``task.toml`` checked."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from palestra.envs.rows import BadRow
from palestra.rl.types import File

MAX_FILES = 2000
MAX_BYTES = 16 << 20
"""What one task directory may hold: files, and their bytes."""

_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


class _Table(BaseModel):
    """Keys that are not read are left alone: the format has grown, and goes on growing."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class VerifierTable(_Table):
    """``[verifier]``: seconds, and variables of the script."""

    timeout_sec: float = Field(default=600.0, gt=0, le=86_400)
    env: dict[str, str] = {}


class EnvironmentTable(_Table):
    """``[environment]``: an image or none, and how the box is to be."""

    docker_image: str = ""
    workdir: str = ""
    env: dict[str, str] = {}
    skills_dir: str = ""
    mcp_servers: list[Any] = []
    gpus: int = 0


class StepTable(_Table):
    """One of ``[[steps]]``."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}$")
    verifier: VerifierTable = VerifierTable()


class NameTable(_Table):
    """``[task]``."""

    name: str = ""


class TaskToml(_Table):
    """What is read of ``task.toml``, of version 1.0 or schema 1.1."""

    task: NameTable = NameTable()
    metadata: dict[str, Any] = {}
    verifier: VerifierTable = VerifierTable()
    environment: EnvironmentTable = EnvironmentTable()
    steps: list[StepTable] = []


def folder_files(folder: Path) -> dict[str, File]:
    """The files of a task directory by path; raises ``BadRow`` for links, pipes and devices, names
    that are not UTF-8, and more than the limits."""
    found: dict[str, File] = {}
    room = MAX_BYTES
    for top, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            path = Path(top, name)
            place = path.relative_to(folder).as_posix()
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise BadRow(f"{place!r}: neither a folder nor a regular file")
            if not place.isprintable():
                raise BadRow(f"{place!r}: not a name for a file")
        for name in names:
            path = Path(top, name)
            room -= path.stat().st_size
            if room < 0 or len(found) >= MAX_FILES:
                raise BadRow(f"more than {MAX_FILES} files or {MAX_BYTES} bytes")
            executable = bool(path.stat().st_mode & 0o100)
            found[path.relative_to(folder).as_posix()] = File(
                data=path.read_bytes(), executable=executable
            )
    return found


def task_toml(data: bytes) -> TaskToml:
    """A task.toml, checked; raises ``BadRow`` naming the key."""
    try:
        return TaskToml.model_validate(tomllib.loads(data.decode()))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BadRow(f"task.toml: {place}: {first['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise BadRow(f"task.toml: {str(error).splitlines()[0]}") from error


def filled(env: dict[str, str]) -> dict[str, str]:
    """Variables with ``${NAME:-default}`` as its default: what this machine has set is nobody's
    business. Raises ``BadRow`` for one without a default."""

    def value(found: re.Match[str]) -> str:
        if found[2] is None:
            raise BadRow(f"task.toml: env: {found[1]} has no default, and ours is not handed over")
        return found[2]

    for name, text in env.items():
        if "\0" in name + text or "=" in name or not name:
            raise BadRow(f"task.toml: env: {name!r} cannot be a variable")
    return {name: _VARIABLE.sub(value, text) for name, text in env.items()}


def as_text(files: dict[str, File], path: str) -> str:
    """A file that has to be there and to be UTF-8; raises ``BadRow``."""
    if path not in files:
        raise BadRow(f"{path}: missing")
    try:
        return files[path].data.decode().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise BadRow(f"{path}: not UTF-8") from error
