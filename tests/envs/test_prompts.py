"""What a policy is told: the task and the tools, and nothing about what judges it."""

from __future__ import annotations

import asyncio
import os
import re

import pytest

from palestra.envs.complete import Complete
from palestra.envs.records import humaneval_task, mbpp_task
from palestra.envs.repair import Repair
from palestra.envs.sources import load
from palestra.rl.errors import UserError
from palestra.rl.types import CallCheck, ScriptCheck, Task
from palestra.sandbox import auto
from palestra.sandbox.checks import run_checks

ABOUT_THE_GRADER = re.compile(
    r"grad(e|er|ing)\b|verdict|reward|scor(e|ing)\b|sandbox|supervis|descriptor|palestra|report"
    r"|exit code|proxy|candidate|checker|exploit|cheat|hack",
    re.IGNORECASE,
)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Task, ...]:
    """Tasks of every shape that we write prompts for."""
    try:
        boxes = auto.choose(root=tmp_path_factory.mktemp("boxes"))
    except UserError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))
    made = load("repair:", run_checks=run_checks, provider=boxes, seed=0, limit=3)
    area = mbpp_task(
        {
            "task_id": 2,
            "text": "Write area.",
            "code": "def area(r):\n    return r * r\n",
            "test_list": ["assert area(2) == 4", "assert area(1234) == 1522756"],
        }
    )
    half = humaneval_task(
        {
            "task_id": "HumanEval/0",
            "prompt": 'def half(x):\n    """Half of x."""\n',
            "entry_point": "half",
            "canonical_solution": "    return x // 2\n",
            "test": "def check(candidate):\n    assert candidate(12345) == 6172\n",
        }
    )
    return (*asyncio.run(made).tasks, area, half)


@pytest.mark.parametrize("env", [Repair, Complete])
def test_no_prompt_tells_about_the_grader(
    tasks: tuple[Task, ...], env: type[Repair | Complete]
) -> None:
    played = env(run_checks)
    for task in tasks:
        shown = "\n".join(message.content for message in played.prompt(task))
        assert task.prompt in shown
        assert ABOUT_THE_GRADER.findall(shown) == [], task.id


@pytest.mark.parametrize("env", [Repair, Complete])
def test_no_tool_grades_or_tells_about_grading(env: type[Repair | Complete]) -> None:
    assert {tool.name for tool in env.tools} <= {"view", "replace", "write", "test", "submit"}
    for tool in env.tools:
        assert ABOUT_THE_GRADER.findall(f"{tool.name} {tool.description} {tool.parameters}") == []


def test_no_prompt_holds_a_hidden_check(tasks: tuple[Task, ...]) -> None:
    for task in tasks:
        shown = task.prompt + "".join(task.files.values())
        visible = {check.id for check in task.visible}
        for check in task.hidden:
            if check.id in visible:
                continue
            if isinstance(check, ScriptCheck):
                assert check.code not in shown
            elif isinstance(check, CallCheck):
                assert f"{check.function}{check.args} == {check.expected}" not in shown
