"""What the agent of a SWE-bench row finds: the files of its commit, made ready, without history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from palestra.envs.lazy_files import LazyFiles, digest, kept_files
from palestra.envs.r2e_rows import HIDDEN
from palestra.envs.repository import (
    one_commit,
    patched_files,
    snapshot,
    with_git,
    without_git,
)
from palestra.envs.rows import BadRow
from palestra.envs.starting import after, in_image
from palestra.envs.swebench_rows import Instance
from palestra.rl.errors import UserError
from palestra.rl.types import File, Image, SandboxProvider

BESIDE = "swebench.toml"
_INSTEAD = f"name the repository in {BESIDE}, or "
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


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
        hidden = HIDDEN if row.test_files else ()

        async def copied() -> Mapping[str, File]:
            found = await in_image(image, place.provider, instead=_INSTEAD, hidden=hidden)
            return with_git(found)

        return await kept_files(place.cache, repr((image, hidden)), copied)
    known = place.beside.repositories[row.repo]
    repository, commit = place.folder / known.path, row.base_commit or known.commit
    try:
        plain = snapshot(repository, commit).files
    except UserError as error:
        raise BadRow(f"field base_commit: {error}") from error
    if not known.setup:
        return LazyFiles(partial(one_commit, repository, commit))

    commands = {f"setup {command!r}": command for command in known.setup}

    async def ready() -> Mapping[str, File]:
        return with_git(await after(plain, commands, place.provider))

    key = repr((digest(plain), known.setup))
    return await kept_files(place.cache, key, ready)


async def broken(row: Instance, start: Mapping[str, File], place: Workplace) -> Mapping[str, File]:
    """``start`` with the bug that the row's patch is; raises ``BadRow``."""
    code = without_git(start)
    changed = applied(code, row.patch, "patch")

    async def make() -> Mapping[str, File]:
        kept = {path: file for path, file in code.items() if path not in changed}
        return with_git(kept | {path: file for path, file in changed.items() if file is not None})

    return await kept_files(place.cache, repr((digest(code), row.patch)), make)


def applied(files: Mapping[str, File], diff: str, field: str) -> dict[str, File | None]:
    """What a diff of a row changes; raises ``BadRow``."""
    try:
        return patched_files(files, diff)
    except UserError as error:
        raise BadRow(f"field {field}: {error}") from error
