"""A coding environment of one's own, of several turns, played by a scripted agent.

.venv/bin/python examples/scripted_agent.py
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from palestra.deploy.boxes import open_boxes
from palestra.envs.arguments import tool
from palestra.envs.files import FileEnv
from palestra.envs.gym import TaskEnv
from palestra.envs.records import mbpp_task
from palestra.rewards.score import Weighted
from palestra.rewards.tests_pass import tests_pass
from palestra.rl.types import Json, Observation, Sandbox, Task

ROW = {  # as in MBPP: each assertion is a hidden check, and the first is shown
    "task_id": "longest",
    "text": "Write longest(words), which returns the longest word, the first of several.",
    "code": "def longest(words):\n    return max(words, key=len)\n",
    "test_list": ["assert longest(['a', 'bb']) == 'bb'", "assert longest(['ab', 'cd']) == 'ab'"],
}
TRIES = ("def longest(words):\n    return words[0]\n", ROW["code"])


class Functions(FileEnv):
    """Write a small function, test it, hand it in."""

    name = "acme/Functions-v0"
    rewards = {"tests_pass": Weighted(reward=tests_pass)}
    tools = (
        tool("write", "Write solution.py.", text="string: the whole file"),
        tool("test", "Run the visible test."),
        tool("submit", "Hand solution.py in."),
    )

    async def apply(
        self, task: Task, name: str, arguments: Mapping[str, Json], box: Sandbox
    ) -> Observation:
        """What each tool does; all that changes is in the box."""
        if name == "write":
            await self.write("solution.py", str(arguments["text"]), box)
        if name == "test":
            return await self.test(task, box)
        return Observation(text="ok", submitted=name == "submit")


boxes = open_boxes(unsafe_local=False)
env = Functions(boxes.run_checks)
game = TaskEnv(env, [mbpp_task(ROW)], provider=boxes.provider, grader=boxes.grader)
print(game.reset()[0])
for text in TRIES:
    game.step(json.dumps({"name": "write", "arguments": {"text": text}}))
    answer, *_ = game.step('{"name": "test", "arguments": {}}')
    print(f"> {text}{answer}")
print("reward", game.step('{"name": "submit", "arguments": {}}')[1])
game.close()
