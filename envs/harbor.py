"""Harbor task directories as tasks: ``harbor:DIR``, one of them or a folder of them.

Read are ``task.toml`` (version 1.0, schema 1.1), ``instruction.md``, ``environment/``, ``tests/``
and ``solution/solve.sh``. The work folder is that of the image or Dockerfile, and the only one
besides /tmp that an agent can write to; what it changes in it is its work. ``tests/test.sh`` judges
it in a fresh box. One that wants to fetch its tools from a network is not run: the tests of pytest
beside it are, by our own runner. Each of ``[[steps]]`` is a task of its own, which starts where the
solutions of those before it lead.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from palestra.envs.harbor_dockerfile import layout
from palestra.envs.harbor_env import Harbor
from palestra.envs.harbor_files import TaskToml, VerifierTable, as_text, filled, folder_files
from palestra.envs.harbor_files import task_toml as checked_toml
from palestra.envs.lazy_files import digest, kept_files
from palestra.envs.patch import patch_of
from palestra.envs.rows import BadRow
from palestra.envs.starting import after, in_image
from palestra.envs.syntax import parse
from palestra.envs.task_json import task_from_json
from palestra.envs.taskset import Skipped
from palestra.rl.errors import UserError
from palestra.rl.types import (
    Check,
    File,
    Image,
    SandboxProvider,
    SuiteCheck,
    Task,
    Tree,
    VerifierCheck,
)

SCRATCH = ("/tests", "/logs")
EXPORTED = "palestra"
"""The table of ``[metadata]`` of a task that we wrote: its checks are in ``tests/task.json``."""

_FETCHES = re.compile(
    r"(^|[\s;&|(])(apt-get|apt|curl|wget|uvx?|pip3?|npm|git clone)\s", re.MULTILINE
)
_LACKING = "command -v {word} >/dev/null || {{ echo boxes here lack {word} >&2; exit 1; }}\n"
_COMPOSE = re.compile(r"environment/(docker-)?compose\.ya?ml")


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """Boxes that solutions are run in, and a folder that remembers what they left."""

    provider: SandboxProvider
    cache: Path | None = None

    async def after(
        self, files: Mapping[str, File], commands: Mapping[str, str], image: Image
    ) -> Mapping[str, File]:
        """The files as the commands leave them; raises ``BadRow``."""

        async def make() -> Mapping[str, File]:
            return await after(files, commands, self.provider, image)

        key = repr((digest(files), commands, image))
        return await kept_files(self.cache, key, make)


async def harbor_tasks(
    folder: Path, provider: SandboxProvider, *, cache: Path | None = None, limit: int | None = None
) -> tuple[list[Task], tuple[Skipped, ...]]:
    """The tasks of a folder, and the task directories that give none. Raises ``UserError``."""
    shop = Workshop(provider=provider, cache=cache)
    tasks: list[Task] = []
    skipped: list[Skipped] = []
    for place in task_folders(folder):
        try:
            tasks += [task async for task in _tasks(place, shop)]
        except (BadRow, UserError, OSError) as error:
            skipped.append(Skipped(id=place.name, reason=str(error)))
        if limit is not None and len(tasks) >= limit:
            break
    return tasks[:limit], tuple(skipped)


def task_folders(folder: Path) -> list[Path]:
    """The folder if it is a task, or those in it that are; raises ``UserError`` for none."""
    if (folder / "task.toml").is_file():
        return [folder]
    found = sorted(path.parent for path in folder.glob("*/task.toml"))
    if not found:
        raise UserError(f"{folder}: there is no task.toml, neither in it nor in its folders")
    return found


@dataclass(frozen=True, kw_only=True)
class Part:
    """A task, or one of its steps, whose own files lie below ``prefix``."""

    name: str
    prefix: str
    verifier: VerifierTable


async def _tasks(folder: Path, shop: Workshop) -> AsyncIterator[Task]:
    files = folder_files(folder)
    toml = checked_toml(files["task.toml"].data)
    if EXPORTED in toml.metadata:
        yield _exported(files)
        return
    image, start, skills = await _environment(toml, files, shop)
    name = toml.task.name or folder.name
    for part in _parts(toml, name):
        prepared = await _prepared(start, _below(files, f"{part.prefix}workdir/"), image, shop)
        solution = _below(files, f"{part.prefix}solution/")
        solved = await _solved(prepared, solution, image, shop)
        tests = {**_below(files, "tests/"), **_below(files, f"{part.prefix}tests/")}
        hidden, test_files = judged_by(tests, part.verifier)
        yield Task(
            id=part.name,
            source=Harbor.name,
            kind="harbor",
            prompt=as_text(files, f"{part.prefix}instruction.md") + skills,
            files={},
            reference=_reference(prepared, solved),
            artifacts=(),
            hidden=hidden,
            test_files=test_files,
            tree=Tree(files=prepared),
            image=image,
        )
        start = solved


def judged_by(
    tests: dict[str, File], verifier: VerifierTable
) -> tuple[tuple[Check, ...], dict[str, str]]:
    """The checks of a task's ``tests/``, and the files that they need; raises ``BadRow``."""
    script = as_text(tests, "test.sh")
    texts = {path: as_text(tests, path) for path in tests}
    fetched = _FETCHES.search(re.sub(r"(?m)^\s*#.*$", "", script))
    if not fetched:
        timeout, env = verifier.timeout_sec, filled(verifier.env)
        return (VerifierCheck(id="verifier", script="test.sh", timeout=timeout, env=env),), texts
    ids = [f"tests/{path}::{name}" for path, text in texts.items() for name in _named(path, text)]
    if not ids:
        raise BadRow(f"tests/test.sh: needs a network ({fetched[2]}), and there is no test_*.py")
    return tuple(SuiteCheck(id=each) for each in ids), {f"tests/{p}": t for p, t in texts.items()}


def _named(path: str, text: str) -> Iterator[str]:
    """The tests of a file as pytest would find them; all variants of one with parameters."""
    name = path.rpartition("/")[2]
    if not (name.startswith("test_") or name.endswith("_test.py")) or not name.endswith(".py"):
        return
    try:
        body = parse(text).body
    except (SyntaxError, ValueError) as error:
        raise BadRow(f"tests/{path}: does not parse") from error
    for node in body:
        if isinstance(node, ast.ClassDef) and (node.name.startswith("Test") or node.bases):
            yield from (f"{node.name}::{test}" for test in _functions(node.body))
    yield from _functions(body)


def _functions(body: list[ast.stmt]) -> Iterator[str]:
    for node in body:
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
        if isinstance(node, kinds) and node.name.startswith("test"):
            marks = "".join(ast.unparse(mark) for mark in node.decorator_list)
            yield f"{node.name}[" if "parametrize" in marks else node.name


async def _environment(
    toml: TaskToml, files: dict[str, File], shop: Workshop
) -> tuple[Image, Mapping[str, File], str]:
    """The boxes of a task, the files in them, and what its agent is told of skills."""
    given = toml.environment
    if compose := next(filter(_COMPOSE.fullmatch, files), ""):
        raise BadRow(f"{compose}: needs several containers")
    if given.mcp_servers or given.gpus:
        raise BadRow("task.toml: environment: boxes have neither MCP servers nor GPUs")
    env = filled(given.env)
    if given.docker_image:
        folder = given.workdir or "/app"
        image = Image(name=given.docker_image, folder=folder, env=env, scratch=SCRATCH)
        return image, await in_image(image, shop.provider, instead=""), ""
    made = layout(
        as_text(files, "environment/Dockerfile"),
        _below(files, "environment/"),
        workdir=given.workdir,
        skills=given.skills_dir,
    )
    image = Image(name="", folder=made.folder, env={**made.env, **env}, scratch=SCRATCH)
    needs = "".join(_LACKING.format(word=word) for word in made.commands)
    await shop.after({}, {"environment/Dockerfile": needs}, image)
    told = [f"\nThe skill {path}:\n{as_text(dict(made.skills), path)}" for path in made.skills]
    return image, made.files, "".join(told)


def _parts(toml: TaskToml, name: str) -> list[Part]:
    if not toml.steps:
        return [Part(name=name, prefix="", verifier=toml.verifier)]
    return [
        Part(
            name=f"{name}/{step.name}",
            prefix=f"steps/{step.name}/",
            verifier=step.verifier.model_copy(
                update={"env": {**toml.verifier.env, **step.verifier.env}}
            ),
        )
        for step in toml.steps
    ]


async def _prepared(
    start: Mapping[str, File], added: Mapping[str, File], image: Image, shop: Workshop
) -> Mapping[str, File]:
    """``start`` with the files that a step brings, after its ``setup.sh``."""
    files = {**start, **added}
    if "setup.sh" not in added:
        return files
    return await shop.after(files, {"workdir/setup.sh": "bash setup.sh"}, image)


async def _solved(
    start: Mapping[str, File], solution: dict[str, File], image: Image, shop: Workshop
) -> Mapping[str, File]:
    if not solution:
        return start
    if more := sorted(solution.keys() - {"solve.sh"}):
        raise BadRow(f"solution/{more[0]}: only solve.sh is run")
    return await shop.after(start, {"solution/solve.sh": as_text(solution, "solve.sh")}, image)


def _reference(start: Mapping[str, File], solved: Mapping[str, File]) -> dict[str, str]:
    changed = patch_of(Tree(files=start), solved).files
    there = {path: file for path, file in changed.items() if file is not None}
    return {path: as_text(there, path) for path in there}


def _exported(files: dict[str, File]) -> Task:
    try:
        row = json.loads(as_text(files, "tests/task.json"))
    except (ValueError, RecursionError) as error:
        raise BadRow(f"tests/task.json: not JSON: {error}") from error
    if not isinstance(row, dict):
        raise BadRow("tests/task.json: not an object")
    task = task_from_json(row)
    return replace(task, prompt=as_text(files, "instruction.md").removesuffix("\n"))


def _below(files: Mapping[str, File], folder: str) -> dict[str, File]:
    return {p[len(folder) :]: file for p, file in files.items() if p.startswith(folder)}
