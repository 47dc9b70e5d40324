"""What an environment author writes: prompts, tools and answers to tool calls.

An environment holds no episode state: everything that changes is in the sandbox, which the runner
opens and closes. Authors see messages and tool calls; token ids, budgets and grading live
elsewhere.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from palestra.envs.arguments import ToolError, accept
from palestra.rewards.score import Weighted
from palestra.rl.errors import PathRefused, TaskError
from palestra.rl.types import (
    CheckRunner,
    Demonstration,
    Json,
    Message,
    Observation,
    Sandbox,
    Task,
    Tool,
    ToolCall,
    Turn,
    Verdict,
)


class Env(ABC):
    """One way to play tasks of one shape.

    Class attributes: ``name`` is the registered name; ``tools`` is what the policy may call;
    ``rewards`` says what counts, and how much; an episode ends after ``max_turns`` replies;
    ``plays`` names another environment whose tasks it can play as well (``tasks.env``). The
    constructor is the factory that the registry and plugins use.

    Example: a subclass sets the attributes and answers in ``apply``:

        class Guess(Env):
            name = "acme/Guess-v0"
            tools = (tool("guess", "Guess a number.", number="integer: your guess"),)
            rewards = {"tests_pass": Weighted(reward=tests_pass)}

            async def apply(self, task, name, arguments, box):
                return Observation(text="", submitted=True)
    """

    name: ClassVar[str]
    tools: ClassVar[tuple[Tool, ...]]
    rewards: ClassVar[Mapping[str, Weighted]]
    plays: ClassVar[str] = ""
    max_turns: int = 8
    system_prompt: str = ""

    def __init__(self, run_checks: CheckRunner, *, system_prompt: str | None = None) -> None:
        self.run_checks = run_checks
        if system_prompt is not None:
            self.system_prompt = system_prompt

    def prompt(self, task: Task) -> tuple[Message, ...]:
        """The messages an episode starts with: the system prompt unless it is empty, the task."""
        user = Message(role="user", content=task.prompt)
        if not self.system_prompt:
            return (user,)
        return (Message(role="system", content=self.system_prompt), user)

    async def setup(self, task: Task, box: Sandbox) -> None:
        """Put the tree and the files that the agent starts from into an empty box.

        ``TaskError``, ``UserError`` and ``PathRefused`` say that the task is at fault: its episodes
        are left out, and the run goes on.
        """
        if task.tree is not None:
            files = {path: file.data for path, file in task.tree.files.items()}
            marked = {path for path, file in task.tree.files.items() if file.executable}
            await box.put(files, executable=marked)
        for path, text in task.files.items():
            try:
                data = text.encode()
            except UnicodeEncodeError as error:
                raise TaskError(f"{path}: has characters that cannot be written") from error
            await box.write(path, data)

    async def act(self, task: Task, call: ToolCall, box: Sandbox) -> Observation:
        """Answer one tool call. Wrong use is answered with what is allowed, and never raises."""
        try:
            arguments = accept(call, self.tools)
            return await self.apply(task, call.name, arguments, box)
        except (ToolError, PathRefused) as error:
            return Observation(text=str(error))

    @abstractmethod
    async def apply(
        self, task: Task, name: str, arguments: Mapping[str, Json], box: Sandbox
    ) -> Observation:
        """Do what tool ``name`` does; ``arguments`` fit its schema, integers being integers.

        Raise ``ToolError`` to tell the policy that it asked for something impossible.
        """

    async def judge(self, task: Task, turns: Sequence[Turn], box: Sandbox) -> Verdict | None:
        """What was done, judged by the environment itself, or None: the task's checks decide.

        Asked once when an episode has ended, whatever ended it, while its box is still there.
        Raise ``InfraError`` when no verdict can be reached.
        """
        return None

    async def teardown(self, task: Task, box: Sandbox) -> None:
        """Close what ``setup`` opened outside of the box; called once, also after a failed setup
        and when nothing was judged."""

    def tasks(self, seed: int) -> Sequence[Task]:
        """Tasks of its own, which ``--tasks NAME`` plays; none unless the environment has some.

        ``labels["split"]`` may name the split that a task belongs to.
        """
        return ()

    def demonstrations(
        self,
        tasks: Sequence[Task],
        seed: int,
        *,
        mistakes: float = 0.0,
        careless: float = 0.0,
        gives_up: float = 0.0,
        recites: float = 0.0,
    ) -> Iterator[Demonstration]:
        """Solved episodes for a supervised start; none unless the environment can write them."""
        return iter(())
