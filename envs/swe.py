"""Environments that resolve an issue of a repository: one class for each set of tools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from palestra.envs.arguments import tool
from palestra.envs.base import Env
from palestra.envs.tools.bash import BASH, bash
from palestra.envs.tools.editor import CREATE_FILE, EDITOR, INSERT, STR_REPLACE, VIEW, edit
from palestra.rewards.score import Weighted
from palestra.rewards.tests_pass import tests_pass
from palestra.rl.types import Json, Observation, Sandbox, Task, Tool

SYSTEM_PROMPT = """\
Solve the task in the work folder with the tools: look around, change files, try what you changed, \
and submit when you are done. Your work is judged by tests that you cannot see. Call exactly one \
tool in every reply."""
SUBMIT = tool("submit", "Finish: hand the folder in as it is.")


class SWE(Env):
    """A shell and an editor; the work is what was changed in the task's tree."""

    name: ClassVar[str] = "palestra/SWE-v0"
    tools: ClassVar[tuple[Tool, ...]] = (BASH, *EDITOR, SUBMIT)
    rewards: ClassVar[Mapping[str, Weighted]] = {"tests_pass": Weighted(reward=tests_pass)}
    max_turns: int = 50
    system_prompt: str = SYSTEM_PROMPT

    async def apply(
        self, task: Task, name: str, arguments: Mapping[str, Json], box: Sandbox
    ) -> Observation:
        """Answer one tool call; see ``Env.apply``."""
        if name == "submit":
            return Observation(text="", submitted=True)
        if name == "bash":
            return await bash(str(arguments["command"]), box)
        return await edit(name, arguments, box)


class SWEBash(SWE):
    """A shell alone."""

    name: ClassVar[str] = "palestra/SWEBash-v0"
    plays: ClassVar[str] = SWE.name
    tools: ClassVar[tuple[Tool, ...]] = (BASH, SUBMIT)


class SWEKimi(SWE):
    """The six tools that the K2.5 report evaluates SWE-bench with (their arguments are ours)."""

    name: ClassVar[str] = "palestra/SWEKimi-v0"
    plays: ClassVar[str] = SWE.name
    tools: ClassVar[tuple[Tool, ...]] = (BASH, CREATE_FILE, INSERT, VIEW, STR_REPLACE, SUBMIT)
