"""What environments share whose agent edits a few files: reading, writing and testing them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from palestra.envs.arguments import ToolError
from palestra.envs.base import Env
from palestra.envs.feedback import report
from palestra.envs.patch import collect_patch
from palestra.envs.unit_tests import keep_only
from palestra.rl.errors import PathRefused
from palestra.rl.types import (
    CheckJob,
    File,
    Json,
    Observation,
    Patch,
    Sandbox,
    Task,
    UnitCheck,
    Work,
)

MAX_BYTES = 200_000


class FileEnv(Env):
    """An environment whose state is the task's ``artifacts`` in the box."""

    async def read(self, task: Task, path: str, box: Sandbox) -> str:
        """The text of one artifact, as it is now."""
        return (await box.read(path)).decode(errors="replace")

    async def write(self, path: str, text: str, box: Sandbox) -> None:
        """Store an artifact; raises ``ToolError`` for a text that no file may hold."""
        try:
            data = text.encode()
        except UnicodeEncodeError as error:
            raise ToolError("the text has characters that cannot be written") from error
        if len(data) > MAX_BYTES:
            raise ToolError(f"the file would be larger than {MAX_BYTES} bytes")
        await box.write(path, data)

    async def test(self, task: Task, box: Sandbox) -> Observation:
        """Run the visible checks on the files as they are; nothing is written into the work."""
        if not task.visible:
            return Observation(text="this task has no visible tests")
        files = {path: await self.read(task, path, box) for path in task.artifacts}
        job = CheckJob(
            files=files,
            checks=task.visible,
            test_files=visible_tests(task),
            check_s=task.check_s,
        )
        limit = 10.0 + task.check_s * len(task.visible)
        results = await self.run_checks([job], box, timeout=limit)
        return Observation(text=report(task.visible, results[0]))


async def collect(task: Task, box: Sandbox) -> Work:
    """What is graded: the declared artifacts as they are; one that cannot be read is missing. For a
    tree, what was changed in it, after everything in the box has been ended."""
    if task.tree is not None:
        return await collect_patch(task.tree, box)
    files: dict[str, bytes] = {}
    for path in task.artifacts:
        with suppress(PathRefused):
            files[path] = await box.read(path)
    return files


def work_of(task: Task, files: Mapping[str, str]) -> Work:
    """What is collected from an agent that wrote ``files`` and nothing else, new scripts (``#!``)
    as executable files."""
    if task.tree is None:
        return {path: text.encode() for path, text in files.items() if path in task.artifacts}
    before = task.tree.files
    changed = {
        path: File(
            data=text.encode(),
            executable=before[path].executable if path in before else text.startswith("#!"),
        )
        for path, text in files.items()
    }
    return Patch(files={p: file for p, file in changed.items() if before.get(p) != file})


def artifact(task: Task, arguments: Mapping[str, Json]) -> str:
    """The file that a call is about; raises ``ToolError`` when it names none of the task's."""
    path = arguments.get("path")
    if path is None and len(task.artifacts) == 1:
        return task.artifacts[0]
    if isinstance(path, str) and path in task.artifacts:
        return path
    raise ToolError(f"path must be one of: {', '.join(task.artifacts)}")


def visible_tests(task: Task) -> dict[str, str]:
    """The test files with nothing but the visible checks: all that may enter an agent's box."""
    ids = {check.id for check in task.visible if isinstance(check, UnitCheck)}
    return keep_only(task.test_files, ids) if ids else {}
