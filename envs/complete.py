"""The environment ``palestra/Complete-v0``: write a program that does what the prompt says."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import ClassVar

from palestra.envs.arguments import tool
from palestra.envs.files import FileEnv, artifact
from palestra.envs.syntax import parse
from palestra.rewards.score import Weighted
from palestra.rewards.tests_pass import tests_pass
from palestra.rl.types import Json, Observation, Sandbox, Task, Tool

SYSTEM_PROMPT = """\
Solve the programming task with the tools: write the whole program, run the visible tests if there \
are any, and submit when you are done. Your work is judged by hidden tests. Call exactly one tool \
in every reply."""
SOLUTION = "solution.py"


class Complete(FileEnv):
    """Tools ``write``, ``test`` and ``submit``; the work is the task's artifact."""

    name: ClassVar[str] = "palestra/Complete-v0"
    tools: ClassVar[tuple[Tool, ...]] = (
        tool(
            "write",
            "Write the whole program, replacing what was there.",
            text="string: the text of the file",
            path="string?: the file; needed only when the task has several",
        ),
        tool("test", "Run the visible tests and show the first failure."),
        tool("submit", "Finish: hand the program in as it is."),
    )
    rewards: ClassVar[Mapping[str, Weighted]] = {"tests_pass": Weighted(reward=tests_pass)}
    max_turns: int = 8
    system_prompt: str = SYSTEM_PROMPT

    async def apply(
        self, task: Task, name: str, arguments: Mapping[str, Json], box: Sandbox
    ) -> Observation:
        """Answer one tool call; see ``Env.apply``."""
        if name == "submit":
            return Observation(text="", submitted=True)
        if name == "test":
            return await self.test(task, box)
        text = arguments["text"]
        assert isinstance(text, str)  # by the schema
        await self.write(artifact(task, arguments), text, box)
        return Observation(text="ok")


def solution_files(task: Task, completion: str) -> Mapping[str, bytes]:
    """The files that a bare completion stands for, as benchmarks of this kind agree on it.

    A text that defines the entry point is a whole program, and gets what the prompt has before the
    entry point (imports and helpers). Anything else is the continuation of the prompt. Without an
    entry point (``labels["entry_point"]``) the completion is the file.
    """
    path, entry = task.artifacts[0], task.labels.get("entry_point", "")
    stem = task.labels.get("code_prompt", "")
    if not entry or not stem:
        text = completion
    elif entry in _defined(completion):
        text = _before(stem, entry) + completion
    else:
        text = stem + completion
    return {path: text.encode(errors="replace")}


def _defined(text: str) -> set[str]:
    """Names that a text binds at its top level; none when it does not parse."""
    try:
        tree = parse(text)
    except (SyntaxError, ValueError):
        return set()
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def _before(stem: str, entry: str) -> str:
    """The lines of a prompt before the definition of ``entry``."""
    kept: list[str] = []
    for line in stem.splitlines(keepends=True):
        if line.startswith((f"def {entry}(", f"async def {entry}(", f"class {entry}")):
            break
        kept.append(line)
    return "".join(kept)
