"""A verifiable reward for code style: what ruff finds after the change and did not find before."""

from __future__ import annotations

import asyncio
import json
import math
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE

from palestra.rewards.unified import original, texts_after
from palestra.rl.errors import Abstain, GraderError
from palestra.rl.types import RewardFn, Sandbox, TaskOf, Trajectory

RULES = "E,F,W,B"
"""Ruff's rules of pycodestyle, pyflakes and bugbear; our default."""
UNREADABLE = math.inf
"""Findings in a file that cannot be parsed."""


def style(*, task_of: TaskOf, rules: str = RULES) -> RewardFn:
    """1 / (1 + n) for n more findings of ruff in the Python files than before the change."""
    return Style(task_of, rules)


class Style:
    """Findings are counted over all files together, so that moving code costs nothing. What a file
    says to silence ruff does not count. It is 0 where a file can no longer be parsed, in which ruff
    would find little else; one that could not be before has nothing to be compared with and is left
    out. Abstains where no Python file was changed, or none that could be parsed."""

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
        was = await findings({path: original(task, path) for path in after}, self._rules)
        now = await findings(after, self._rules)
        known = [path for path in after if was[path] < UNREADABLE]
        if not known:
            raise Abstain("the changed Python files could not be parsed before")
        return 1.0 / (1 + max(0, sum(now[path] - was[path] for path in known)))


async def findings(texts: Mapping[str, str], rules: str) -> dict[str, float]:
    """How much ruff finds in each of some files, ``UNREADABLE`` in those that are no Python; raises
    ``GraderError`` when it fails.

    Names of files are the agent's, so ruff sees numbers in their place.
    """
    from ruff import find_ruff_bin

    with tempfile.TemporaryDirectory() as folder:
        for number, text in enumerate(texts.values()):
            (Path(folder) / f"{number}.py").write_text(text, errors="replace")
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
    found = dict.fromkeys(texts, 0.0)
    paths = list(texts)
    for row in json.loads(out):
        path = paths[int(Path(row["filename"]).stem)]
        found[path] += UNREADABLE if row["code"] == "invalid-syntax" else 1
    return found
