"""The environment ``palestra/ToolUse-v0``: errands in an office whose tools sometimes fail."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from pydantic import ValidationError

from palestra.envs.arguments import ToolError, tool
from palestra.envs.demos import called
from palestra.envs.files import FileEnv
from palestra.envs.puzzle import slots
from palestra.envs.tool_use.actions import ACTIONS, Action, tool_of
from palestra.envs.tool_use.errands import ERRANDS
from palestra.envs.tool_use.machine import step
from palestra.envs.tool_use.state import State
from palestra.envs.tool_use.tasks import KIND, STATE, office_task
from palestra.envs.tools.observed import observed
from palestra.rewards.score import Weighted
from palestra.rewards.tests_pass import tests_pass
from palestra.rl.errors import TaskError
from palestra.rl.types import (
    Demonstration,
    DemoStep,
    Json,
    Observation,
    Sandbox,
    Task,
    Tool,
)

SYSTEM_PROMPT = """\
You run the errands of an office with its tools. Do what you are asked and nothing else, then call
submit. Tools can fail: an id may be out of date, and what timed out may have been done."""


class ToolUse(FileEnv):
    """Stateful tools with controlled failures (Kimi K2 section 3.1.1).

    The state is a file in the box; where it ends is judged, not how it got there.
    """

    name: ClassVar[str] = "palestra/ToolUse-v0"
    tools: ClassVar[tuple[Tool, ...]] = (
        *(tool_of(action) for action in ACTIONS.values()),
        tool("submit", "Finish."),
    )
    rewards: ClassVar[Mapping[str, Weighted]] = {"tests_pass": Weighted(reward=tests_pass)}
    max_turns: int = 40
    system_prompt: str = SYSTEM_PROMPT

    async def apply(
        self, task: Task, name: str, arguments: Mapping[str, Json], box: Sandbox
    ) -> Observation:
        """Answer one tool call; see ``Env.apply``."""
        if name == "submit":
            return Observation(text="", submitted=True)
        action = _action(name, arguments)
        try:
            state = State.model_validate_json(await box.read(STATE))
        except ValidationError as error:
            raise TaskError(f"{STATE}: no office: {error.error_count()} errors") from error
        state, answer = step(state, action)
        await self.write(STATE, state.model_dump_json(), box)
        return observed(answer.encode())

    def tasks(self, seed: int) -> Sequence[Task]:
        """Every errand at every difficulty; see ``slots``."""
        return [
            office_task(self.name, errand, slot)
            for errand in ERRANDS
            for slot in slots(KIND, errand, seed)
        ]

    def demonstrations(
        self, tasks: Sequence[Task], seed: int, **_: float
    ) -> Iterator[Demonstration]:
        """The scripted player's episode of each task that has its calls; it makes no mistakes."""
        for task in (task for task in tasks if "calls" in task.labels):
            state = State.model_validate_json(task.files[STATE])
            steps: list[DemoStep] = []
            for name, arguments in json.loads(task.labels["calls"]):
                state, answer = step(state, _action(name, arguments))
                steps.append(called(name, arguments, answer))
            steps.append(called("submit", {}))
            yield Demonstration(task_id=task.id, prompt=self.prompt(task), steps=tuple(steps))


def _action(name: str, arguments: Mapping[str, Json]) -> Action:
    try:
        return ACTIONS[name].model_validate(arguments)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ToolError(f"error: {first['loc'][0]}: {first['msg']}") from error
