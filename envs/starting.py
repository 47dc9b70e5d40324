"""Starting trees that are made in boxes: copied out of images, or left by commands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from palestra.envs.patch import LEFT_BEHIND
from palestra.envs.repository import MAX_BYTES, MAX_FILES, without_git
from palestra.envs.rows import BadRow
from palestra.rl.errors import PathRefused, SandboxError, UserError
from palestra.rl.types import ExecResult, File, Image, Sandbox, SandboxProvider

SETUP_S = 600.0
"""Seconds for one command, or a copy."""

_COPY = """
import os, shutil, sys
if sys.version_info < (3, 9):
    sys.exit("its python3 is older than 3.9")
for path in (os.path.join(sys.argv[1], name) for name in sys.argv[2:]):
    if os.path.exists(path):
        sys.exit(f"an agent could read the tests at {path}: make an image without them")
ignored = shutil.ignore_patterns(".git", "__pycache__")
shutil.copytree(sys.argv[1], ".", symlinks=True, ignore=ignored, dirs_exist_ok=True)
"""


async def in_image(
    image: Image, provider: SandboxProvider, *, instead: str, hidden: Sequence[str] = ()
) -> Mapping[str, File]:
    """The files at ``image.folder`` of an image, less their ``.git``.

    Raises ``BadRow`` where there is no such image, folder, or Python in it that our runner could
    use, or one of the paths ``hidden`` (absolute, or in that folder), and ``UserError`` for boxes
    that are made of no image; ``instead`` says what else to do.
    """
    if "image" not in provider.guarantees:
        raise UserError(
            f"{image.name} is a container image, and {provider.name} boxes are made of none: "
            f"{instead}use --set sandbox.backend=docker"
        )
    with _named():
        async with provider.open(replace(image, folder="", scratch=())) as box:
            argv = ["python3", "-I", "-c", _COPY, image.folder, *hidden]
            ended = await box.exec(argv, timeout=SETUP_S)
            if ended.exit_code != 0:
                raise BadRow(f"image {image.name}: {why(ended)}")
            return await tree_of(box)


async def after(
    files: Mapping[str, File],
    commands: Mapping[str, str],
    provider: SandboxProvider,
    image: Image | None = None,
) -> Mapping[str, File]:
    """The files as ``commands`` leave them, texts for bash by what they are called; raises
    ``BadRow`` with that where one fails."""
    with _named():
        async with provider.open(image) as box:
            await put(files, box)
            for name, command in commands.items():
                ended = await box.exec(["bash", "-s"], stdin=command.encode(), timeout=SETUP_S)
                if ended.exit_code != 0:
                    raise BadRow(f"{name}: {why(ended)}")
            return await tree_of(box)


@contextmanager
def _named() -> Iterator[None]:
    """An image that is not there, or cannot be had here, is the row's fault."""
    try:
        yield
    except SandboxError as error:
        if getattr(error, "stage", "") != "image":
            raise
        raise BadRow(str(error)) from error


async def put(files: Mapping[str, File], box: Sandbox) -> None:
    """Lay files out in the work folder."""
    marked = {path for path, file in files.items() if file.executable}
    await box.put({path: file.data for path, file in files.items()}, executable=marked)


async def tree_of(box: Sandbox) -> Mapping[str, File]:
    """The work folder as a tree to hand to agents; raises ``BadRow`` where it is too large."""
    try:
        found = await box.tree(skip=LEFT_BEHIND, max_files=MAX_FILES, max_bytes=MAX_BYTES)
    except PathRefused as error:
        raise BadRow(f"the work folder: {error}") from error
    return without_git(found)


def why(ended: ExecResult) -> str:
    """How a command failed, in a line."""
    if ended.timed_out:
        return f"not done after {SETUP_S:.0f} s"
    lines = ended.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"exit code {ended.exit_code}, signal {ended.signal}"
