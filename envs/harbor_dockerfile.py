"""The Dockerfiles that need no build: a folder, variables, files in it, packages that are there.

A box of ours then stands in for the image, whatever ``FROM`` says. Everything else is refused.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from palestra.envs.rows import BadRow
from palestra.rl.types import File

COMMANDS = {"coreutils": "ls", "python3-minimal": "python3", "ca-certificates": "true"}
"""Packages whose command is not called as they are."""

_IGNORED = frozenset({"FROM", "LABEL", "CMD", "ARG", "EXPOSE", "SHELL", "MAINTAINER"})
_CLEANING = ("rm -rf /var/lib/apt/lists/*", "apt-get update", "apt-get clean", "apt-get update -qq")
_DEFAULT = "/workspace"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a Dockerfile makes: the work folder, variables, files by path below the work folder and
    by path below ``skills`` (the folder that an agent's skills are in), commands it needs."""

    folder: str
    env: Mapping[str, str]
    files: Mapping[str, File]
    skills: Mapping[str, File]
    commands: tuple[str, ...]


def layout(
    text: str, context: Mapping[str, File], *, workdir: str = "", skills: str = ""
) -> Layout:
    """What the Dockerfile ``text`` makes of the files ``context`` beside it.

    ``workdir`` and ``skills`` are those of ``task.toml``. Raises ``BadRow`` naming the line.
    """
    folder = ""
    env: dict[str, str] = {}
    commands: list[str] = []
    placed: dict[str, File] = {}
    for number, word, rest in _instructions(text):
        where = f"environment/Dockerfile line {number}: {word}"
        if word == "WORKDIR":
            folder = posixpath.normpath(posixpath.join(folder or "/", rest))
        elif word == "ENV":
            env |= _variables(rest, where)
        elif word in ("COPY", "ADD"):
            placed |= _copied(rest, context, folder or "/", where)
        elif word == "RUN":
            commands += _packages(rest, where)
        elif word not in _IGNORED:
            raise BadRow(f"{where} needs a built image: name it as environment.docker_image")
    home = workdir or folder or _DEFAULT
    files, skilled = _below(placed, home), _below(placed, skills) if skills else {}
    if (
        outside := placed.keys()
        - {f"{home}/{p}" for p in files}
        - {f"{skills}/{p}" for p in skilled}
    ):
        raise BadRow(f"environment/Dockerfile: {min(outside)} lies outside of the folder {home}")
    return Layout(folder=home, env=env, files=files, skills=skilled, commands=tuple(commands))


def _instructions(text: str) -> Iterator[tuple[int, str, str]]:
    """Number of the line, instruction and the rest of each."""
    pending, start = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#") or not (pending or line.strip()):
            continue
        start = start if pending else number
        pending += line.strip()
        if pending.endswith("\\"):
            pending = pending[:-1] + " "
            continue
        word, _, rest = pending.partition(" ")
        yield start, word.upper(), " ".join(rest.split())
        pending = ""
    if pending:
        raise BadRow(f"environment/Dockerfile line {start}: does not end")


def _words(text: str, where: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise BadRow(f"{where}: {error}") from error


def _variables(rest: str, where: str) -> dict[str, str]:
    words = _words(rest, where)
    if words and "=" not in words[0]:
        words = [f"{words[0]}={rest.partition(' ')[2]}"]
    if any("=" not in word or "$" in word for word in words):
        raise BadRow(f"{where}: not NAME=value")
    return {word.partition("=")[0]: word.partition("=")[2] for word in words}


def _copied(rest: str, context: Mapping[str, File], folder: str, where: str) -> dict[str, File]:
    *sources, target = _words(rest, where) or [""]
    if not sources or any(word.startswith(("--", "http", "[")) or "*" in word for word in sources):
        raise BadRow(f"{where}: not the form SOURCE TARGET")
    into = target.endswith("/") or len(sources) > 1 or target == "."
    place = posixpath.normpath(posixpath.join(folder, target))
    found: dict[str, File] = {}
    for source in sources:
        name = posixpath.normpath(source.lstrip("/")).removeprefix("./")
        below = context if name == "." else _below(context, name)
        if below:
            found |= {posixpath.join(place, path): file for path, file in below.items()}
        elif name in context:
            path = posixpath.join(place, posixpath.basename(name)) if into else place
            found[path] = context[name]
        else:
            raise BadRow(f"{where}: there is no {source}")
    return found


def _packages(rest: str, where: str) -> Iterator[str]:
    """Commands that the packages bring which a RUN installs."""
    for command in re.split(r"&&|;", rest):
        words = _words(command.replace("--no-install-recommends", ""), where)
        if " ".join(words) in _CLEANING or words[:2] == ["mkdir", "-p"] or not words:
            continue
        if words[:2] != ["apt-get", "install"]:
            raise BadRow(f"{where} {' '.join(words)[:60]}: needs a built image")
        names = [word for word in words[2:] if not word.startswith("-")]
        yield from (COMMANDS.get(name, name) for name in names)


def _below(files: Mapping[str, File], folder: str) -> dict[str, File]:
    top = f"{folder.rstrip('/')}/"
    return {path[len(top) :]: file for path, file in files.items() if path.startswith(top)}
