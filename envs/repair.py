"""The environment ``palestra/Repair-v0``: find and replace the wrong lines of a small program."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from palestra.envs.arguments import ToolError, tool
from palestra.envs.files import FileEnv, artifact
from palestra.envs.repair_demos import demonstrate
from palestra.rewards.score import Weighted
from palestra.rewards.tests_pass import tests_pass
from palestra.rl.types import Demonstration, Json, Observation, Sandbox, Task, Tool

SYSTEM_PROMPT = """\
A program has been broken by changing one or a few lines. Repair it with the tools: view the file, \
replace wrong lines, run the visible tests, and submit when you are done. Your work is judged by \
more tests than the visible ones, so repair the cause. Call exactly one tool in every reply."""


class Repair(FileEnv):
    """Tools ``view``, ``replace``, ``test`` and ``submit`` on the files of a task.

    ``system_prompt=""`` leaves the system message out, which a tiny model wants.
    """

    name: ClassVar[str] = "palestra/Repair-v0"
    tools: ClassVar[tuple[Tool, ...]] = (
        tool(
            "view",
            "Show a file with line numbers.",
            path="string?: the file; needed only when the task has several",
        ),
        tool(
            "replace",
            "Replace one line of a file. Say 'ok' or why it cannot be done.",
            line="integer: the number of the line to replace, from 1",
            text="string: the whole new line with its indentation; may hold several lines",
            path="string?: the file; needed only when the task has several",
        ),
        tool("test", "Run the visible tests and show the first failure."),
        tool("submit", "Finish: hand the files in as they are."),
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
        path = artifact(task, arguments)
        text = await self.read(task, path, box)
        if name == "view":
            return Observation(text=numbered(text))
        line, new = arguments["line"], arguments["text"]
        assert isinstance(line, int) and isinstance(new, str)  # by the schema
        await self.write(path, replace_line(text, line, new, path=path), box)
        return Observation(text="ok")

    def demonstrations(
        self,
        tasks: Sequence[Task],
        seed: int,
        *,
        mistakes: float = 0.3,
        careless: float = 0.0,
        gives_up: float = 0.0,
        recites: float = 0.0,
    ) -> Iterator[Demonstration]:
        """One solved episode per task, with true observations known from validation.

        A share ``mistakes`` of them (in [0, 1]) first makes one or two wrong replacements, marked
        ``learn=False``, sees the tests fail and looks elsewhere; of the others a share ``careless``
        submits without running the tests, as people do, and of these a share ``gives_up`` changes
        nothing at all: demonstrations of mixed quality, for RL to tell apart. A share ``recites``
        of all writes some of the file's lines down before the repair: length that nothing needs.

        Wrong lines are taken from the other tasks given, so held-out mutations stay unseen when
        only the train split is given.
        """
        return demonstrate(
            tasks,
            seed,
            mistakes=mistakes,
            careless=careless,
            gives_up=gives_up,
            recites=recites,
            prompt=self.prompt,
        )


def numbered(text: str) -> str:
    """Lines with numbers from 1, as the prompt and ``view`` show a file.

    Example: ``numbered("a\\nb\\n") == "1 a\\n2 b"``
    """
    lines = text.removesuffix("\n").split("\n")
    return "\n".join(f"{number} {line}" for number, line in enumerate(lines, 1))


def replace_line(text: str, line: int, new: str, *, path: str) -> str:
    """``text`` with one 1-based line replaced; a final line break in ``new`` is ignored.

    Raises ``ToolError`` when there is no such line.
    """
    lines = text.split("\n")
    count = len(lines) - text.endswith("\n")
    if not 1 <= line <= count:
        raise ToolError(f"no line {line}: {path} has {count} lines")
    lines[line - 1] = new.removesuffix("\n")
    return "\n".join(lines)
