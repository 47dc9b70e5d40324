"""An environment of one's own that a policy can be trained in from nothing: see times.toml."""

import random

from palestra.envs.arguments import tool
from palestra.envs.base import Env
from palestra.envs.complete import SOLUTION
from palestra.envs.records import mbpp_task
from palestra.rewards.score import Weighted
from palestra.rewards.tests_pass import tests_pass
from palestra.rl.types import Demonstration, DemoStep, Message, Observation, ToolCall


class TimesEnv(Env):
    """Write a function that multiplies by a given number, in one go."""

    name = "acme/Times-v0"
    tools = (tool("write", "Write solution.py and finish.", text="string: the whole file"),)
    rewards = {"tests_pass": Weighted(reward=tests_pass)}

    async def apply(self, task, name, arguments, box):
        """There is one tool, and it ends the episode."""
        await box.write(SOLUTION, arguments["text"].encode())
        return Observation(text="", submitted=True)

    def tasks(self, seed):
        """One for each number from 2 to 11."""
        return [mbpp_task(times(n)) for n in range(2, 12)]

    def demonstrations(self, tasks, seed, *, careless=0.0, **others):
        """A share of ``careless`` ones multiplies by any of the numbers: for RL to tell apart."""
        for task in tasks:
            rng = random.Random(f"{seed}/{task.id}")
            shown = rng.choice(tasks) if rng.random() < careless else task
            call = ToolCall(name="write", arguments={"text": shown.reference[SOLUTION]})
            reply = Message(role="assistant", content="", calls=(call,))
            steps = (DemoStep(message=reply, observation=""),)
            yield Demonstration(task_id=task.id, prompt=self.prompt(task), steps=steps)


def times(n):
    """A row in the form of MBPP."""
    return {
        "task_id": f"times/{n}",
        "text": f"Write a function times(x) that returns {n} * x.",
        "code": f"def times(x):\n    return {n} * x\n",
        "test_list": [f"assert times(7) == {7 * n}", f"assert times(-1) == {-n}"],
    }
