"""What environments share in which the policy thinks and hands in an answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from palestra.envs.arguments import tool
from palestra.envs.demos import called
from palestra.envs.files import FileEnv
from palestra.rewards.score import Weighted
from palestra.rewards.tests_pass import tests_pass
from palestra.rl.types import (
    AnswerCheck,
    Demonstration,
    Json,
    Observation,
    Sandbox,
    Task,
    Tool,
)

SYSTEM_PROMPT = """\
Solve the problem. Think first, then hand in your answer, and nothing else, with the tool submit."""
ANSWER = "answer.txt"


class Answer(FileEnv):
    """One tool, ``submit``; the answer is judged by a verifier, and nothing of it is run."""

    name: ClassVar[str]
    tools: ClassVar[tuple[Tool, ...]] = (
        tool("submit", "Hand in the answer and finish.", answer="string: the answer alone"),
    )
    rewards: ClassVar[Mapping[str, Weighted]] = {"tests_pass": Weighted(reward=tests_pass)}
    max_turns: int = 3
    system_prompt: str = SYSTEM_PROMPT

    async def apply(
        self, task: Task, name: str, arguments: Mapping[str, Json], box: Sandbox
    ) -> Observation:
        """Answer one tool call; see ``Env.apply``."""
        answer = arguments["answer"]
        assert isinstance(answer, str)  # by the schema
        await self.write(ANSWER, answer, box)
        return Observation(text="", submitted=True)

    def demonstrations(
        self, tasks: Sequence[Task], seed: int, **_: float
    ) -> Iterator[Demonstration]:
        """The reference of each task that has one, handed in at once: the form of an episode, and
        nothing of how to think."""
        for task in tasks:
            if ANSWER in task.reference:
                steps = (called("submit", {"answer": task.reference[ANSWER]}),)
                yield Demonstration(task_id=task.id, prompt=self.prompt(task), steps=steps)


def answer_task(
    *,
    id: str,
    env: str,
    kind: str,
    prompt: str,
    verifier: str,
    expected: str,
    reference: str,
    labels: Mapping[str, str],
) -> Task:
    """A task whose one check is a verifier's; ``reference`` is an answer that is right."""
    return Task(
        id=id,
        source=env,
        kind=kind,
        prompt=prompt,
        files={},
        reference={ANSWER: reference},
        artifacts=(ANSWER,),
        hidden=(AnswerCheck(id=f"{id}#0", verifier=verifier, expected=expected, path=ANSWER),),
        labels=labels,
    )
