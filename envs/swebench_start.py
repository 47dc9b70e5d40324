"""What the agent of a SWE-bench row finds: the files of its commit, made ready, without history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from palestra.envs.lazy_files import LazyFiles, kept_files
from palestra.envs.patch import LEFT_BEHIND
from palestra.envs.repository import (
    MAX_BYTES,
    MAX_FILES,
    one_commit,
    patched_files,
    snapshot,
    with_git,
    without_git,
)
from palestra.envs.rows import BadRow
from palestra.envs.swebench_rows import Instance
from palestra.rl.errors import PathRefused, SandboxError, UserError
from palestra.rl.types import ExecResult, File, Image, Sandbox, SandboxProvider

BESIDE = "swebench.toml"
SETUP_S = 600.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_COPY = """
import shutil, sys
if sys.version_info < (3, 9):
    sys.exit("its python3 is older than 3.9")
ignored = shutil.ignore_patterns(".git", "__pycache__")
shutil.copytree(sys.argv[1], ".", symlinks=True, ignore=ignored, dirs_exist_ok=True)
"""


class Repository(BaseModel):
    """A repository on this machine: where it is, the commit of rows that name none, what makes a
    commit ready, and the command that runs its tests, which the agent is told."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path
    commit: str = ""
    setup: tuple[str, ...] = ()
    test: str = ""


class Images(BaseModel):
    """The images of rows whose repository is not on this machine. A row that names none has
    ``name`` with its id for ``{id}``, in small letters and with ``between`` for ``__``. The
    repository lies in ``folder``; the folders ``path`` come first in ``PATH``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = "swebench/sweb.eval.x86_64.{id}:latest"
    between: str = "_1776_"
    folder: str = "/testbed"
    path: tuple[str, ...] = ("/opt/miniconda3/envs/testbed/bin", "/opt/miniconda3/bin")
    test: str = ""


class Beside(BaseModel):
    """The file ``swebench.toml`` beside the rows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    images: Annotated[Images, Field(default_factory=Images)]
    repositories: Annotated[dict[str, Repository], Field(default_factory=dict)]


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """What starting trees are made with: the rows' ``folder`` and what lies beside them, boxes, and
    a folder for what takes time to make."""

    folder: Path
    beside: Beside
    provider: SandboxProvider
    cache: Path | None = None


def image_of(row: Instance, beside: Beside) -> Image | None:
    """The image that a row is played in; None for one whose repository is on this machine."""
    if row.repo in beside.repositories:
        return None
    given = beside.images
    name = given.name.replace("{id}", row.id.lower().replace("__", given.between))
    path = ":".join([*given.path, _PATH])
    return Image(name=row.image or name, folder=given.folder, env={"PATH": path})


async def start_of(row: Instance, place: Workplace) -> Mapping[str, File]:
    """The files of the row's commit, or of its image, with a fresh ``.git``; raises ``BadRow``."""
    if image := image_of(row, place.beside):

        async def copied() -> Mapping[str, File]:
            return with_git(await _copied(image, place.provider))

        return await kept_files(place.cache, repr(image), copied)
    known = place.beside.repositories[row.repo]
    repository, commit = place.folder / known.path, row.base_commit or known.commit
    try:
        plain = snapshot(repository, commit).files
    except UserError as error:
        raise BadRow(f"field base_commit: {error}") from error
    if not known.setup:
        return LazyFiles(partial(one_commit, repository, commit))

    async def ready() -> Mapping[str, File]:
        return with_git(await _set_up(plain, known.setup, place.provider))

    key = repr((str(repository.resolve()), commit, known.setup))
    return await kept_files(place.cache, key, ready)


async def broken(row: Instance, start: Mapping[str, File], place: Workplace) -> Mapping[str, File]:
    """``start`` with the bug that the row's patch is; raises ``BadRow``."""
    code = without_git(start)
    changed = applied(code, row.patch, "patch")

    async def make() -> Mapping[str, File]:
        kept = {path: file for path, file in code.items() if path not in changed}
        return with_git(kept | {path: file for path, file in changed.items() if file is not None})

    return await kept_files(place.cache, repr((row.id, row.base_commit, row.patch)), make)


def applied(files: Mapping[str, File], diff: str, field: str) -> dict[str, File | None]:
    """What a diff of a row changes; raises ``BadRow``."""
    try:
        return patched_files(files, diff)
    except UserError as error:
        raise BadRow(f"field {field}: {error}") from error


async def _set_up(
    files: Mapping[str, File], commands: tuple[str, ...], provider: SandboxProvider
) -> Mapping[str, File]:
    """The files after ``commands`` were run in a box that holds them."""
    async with provider.open() as box:
        await box.put(
            {path: file.data for path, file in files.items()},
            executable={path for path, file in files.items() if file.executable},
        )
        for command in commands:
            ended = await box.exec(["bash", "-c", command], timeout=SETUP_S)
            if ended.exit_code != 0:
                raise BadRow(f"setup {command!r}: {_why(ended)}")
        return await tree_of(box)


async def _copied(image: Image, provider: SandboxProvider) -> Mapping[str, File]:
    """The repository in an image; raises ``BadRow`` where there is no such image, or no repository
    or Python in it that our runner could use."""
    if "image" not in provider.guarantees:
        raise UserError(
            f"{image.name} is a container image, and {provider.name} boxes are made of none: name"
            f" the repository in {BESIDE}, or use --set sandbox.backend=docker"
        )
    try:
        async with provider.open(replace(image, folder="")) as box:
            ended = await box.exec(["python3", "-I", "-c", _COPY, image.folder], timeout=SETUP_S)
            if ended.exit_code != 0:
                raise BadRow(f"image {image.name}: {_why(ended)}")
            return await tree_of(box)
    except SandboxError as error:
        if getattr(error, "stage", "") != "image":
            raise
        raise BadRow(str(error)) from error


async def tree_of(box: Sandbox) -> Mapping[str, File]:
    """The work folder as a tree to hand to agents; raises ``BadRow`` where it is too large."""
    try:
        found = await box.tree(skip=LEFT_BEHIND, max_files=MAX_FILES, max_bytes=MAX_BYTES)
    except PathRefused as error:
        raise BadRow(f"the repository: {error}") from error
    return without_git(found)


def _why(ended: ExecResult) -> str:
    if ended.timed_out:
        return f"not done after {SETUP_S:.0f} s"
    lines = ended.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"exit code {ended.exit_code}, signal {ended.signal}"
