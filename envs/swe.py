"""The environment ``palestra/SWE-v0``: resolve an issue of a repository with a shell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from palestra.envs.arguments import tool
from palestra.envs.base import Env
from palestra.envs.tools.bash import BASH, bash
from palestra.rewards.score import Weighted
from palestra.rewards.tests_pass import tests_pass
from palestra.rl.types import Json, Observation, Sandbox, Task, Tool

SYSTEM_PROMPT = """\
Solve the task in the work folder with the tools: look around, change files, try what you changed, \
and submit when you are done. Your work is judged by tests that you cannot see. Call exactly one \
tool in every reply."""
SUBMIT = tool("submit", "Finish: hand the folder in as it is.")


class SWE(Env):
    """Tools ``bash`` and ``submit``; the work is what was changed in the task's tree."""

    name: ClassVar[str] = "palestra/SWE-v0"
    tools: ClassVar[tuple[Tool, ...]] = (BASH, SUBMIT)
    rewards: ClassVar[Mapping[str, Weighted]] = {"tests_pass": Weighted(reward=tests_pass)}
    max_turns: int = 50
    system_prompt: str = SYSTEM_PROMPT

    async def apply(
        self, task: Task, name: str, arguments: Mapping[str, Json], box: Sandbox
    ) -> Observation:
        """Answer one tool call; see ``Env.apply``."""
        if name == "submit":
            return Observation(text="", submitted=True)
        return Observation(text=await bash(str(arguments["command"]), box))
