"""A verifiable reward for code style: what ruff finds after the change and did not find before."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE

from palestra.rewards.unified import original, texts_after
from palestra.rl.errors import Abstain, GraderError
from palestra.rl.types import RewardFn, Sandbox, TaskOf, Trajectory

RULES = "E,F,W,B"
"""Ruff's rules of pycodestyle, pyflakes and bugbear; our default."""


def style(*, task_of: TaskOf, rules: str = RULES) -> RewardFn:
    """1 / (1 + n) for n more findings of ruff in the Python files than before the change."""
    return Style(task_of, rules)


class Style:
    """Findings are counted over all files together, so that moving code costs nothing. What a file
    says to silence ruff does not count. Abstains where no Python file was changed."""

    def __init__(self, task_of: TaskOf, rules: str) -> None:
        self._task_of = task_of
        self._rules = rules

    async def __call__(self, trajectory: Trajectory, box: Sandbox | None) -> float:
        task = self._task_of(trajectory.task_id)
        try:
            after = texts_after(task, trajectory.patch)
        except ValueError as error:
            raise Abstain(str(error)) from error
        after = {path: text for path, text in after.items() if path.endswith(".py")}
        if not after:
            raise Abstain("no Python file was changed")
        before = {path: original(task, path) for path in after}
        found = await findings({"before": before, "after": after}, self._rules)
        return 1.0 / (1 + max(0, found["after"] - found["before"]))


async def findings(versions: Mapping[str, Mapping[str, str]], rules: str) -> Counter[str]:
    """How much ruff finds in each version of some files; raises ``GraderError`` when it fails.

    Names of files are the agent's, so ruff sees numbers in their place.
    """
    from ruff import find_ruff_bin

    with tempfile.TemporaryDirectory() as folder:
        for version, texts in versions.items():
            (Path(folder) / version).mkdir()
            for number, text in enumerate(texts.values()):
                (Path(folder) / version / f"{number}.py").write_text(text, errors="replace")
        child = await asyncio.create_subprocess_exec(
            *(find_ruff_bin(), "check", "--isolated", "--no-cache", "--ignore-noqa", "--exit-zero"),
            *("--output-format=json", f"--select={rules}", folder),
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
        )
        try:
            out, said = await child.communicate()
        finally:
            with suppress(ProcessLookupError):
                child.kill()
    if child.returncode:
        raise GraderError(f"ruff: {said.decode(errors='replace').strip()[:500]}")
    return Counter(Path(row["filename"]).parent.name for row in json.loads(out))
