"""An environment with tasks of its own: checked with the trusted grader, then played once.

.venv/bin/python examples/times_environment.py
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence

from palestra.deploy.boxes import open_boxes
from palestra.envs.arguments import tool
from palestra.envs.base import Env
from palestra.envs.check import check_tasks
from palestra.envs.gym import TaskEnv
from palestra.envs.taskset import TaskSet
from palestra.rewards.score import Weighted
from palestra.rewards.tests_pass import tests_pass
from palestra.rl.types import CallCheck, Json, Observation, Sandbox, Task


class Times(Env):
    """Write a function that multiplies by a given number."""

    name = "acme/Times-v0"
    tools = (tool("write", "Write times.py and finish.", text="string: the whole file"),)
    rewards = {"tests_pass": Weighted(reward=tests_pass)}

    async def apply(
        self, task: Task, name: str, arguments: Mapping[str, Json], box: Sandbox
    ) -> Observation:
        """Store the file; there is only one tool."""
        await box.write("times.py", str(arguments["text"]).encode())
        return Observation(text="", submitted=True)

    def tasks(self, seed: int) -> Sequence[Task]:
        """One task per factor."""
        return [self.task(n) for n in range(2, 12)]

    def task(self, n: int) -> Task:
        """Multiply by ``n``."""
        check = CallCheck(
            id="seven", module="times", function="times", args="(7,)", expected=f"{7 * n}"
        )
        return Task(
            id=f"times/{n}",
            source=self.name,
            kind="times",
            prompt=f"Write times.py with a function times(x) that returns {n} * x.",
            files={},
            reference={"times.py": f"def times(x):\n    return {n} * x\n"},
            artifacts=("times.py",),
            hidden=(check,),
        )


def main() -> None:
    """Check every task, then play one by hand."""
    boxes = open_boxes(unsafe_local=False)
    env = Times(boxes.run_checks)
    tasks = TaskSet(source=env.name, env=env.name, tasks=tuple(env.tasks(seed=0)))
    report = asyncio.run(check_tasks(tasks, boxes.grader))
    sys.stdout.write(f"{len(report.tasks)} tasks, sound: {report.sound}\n")
    game = TaskEnv(env, tasks.tasks, provider=boxes.provider, grader=boxes.grader)
    prompt, _ = game.reset(options={"task": "times/3"})
    action = '{"name": "write", "arguments": {"text": "def times(x): return 3 * x"}}'
    _, reward, *_ = game.step(action)
    game.close()
    sys.stdout.write(f"{prompt}\n> {action}\nreward {reward}\n")


if __name__ == "__main__":
    main()
