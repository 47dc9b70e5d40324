"""A generative reward model: graded scores over several axes (Kimi K2.5 report, section 4.4.2).

It stands on top of what is verified. An episode that a verifier has failed gets nothing for style
and is not even shown to the judge, so with weights from 0 it can never be worth more than a sibling
that was passed. Weights and rubrics of the report are not published: all values are our defaults.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from palestra.rewards.judging.arbiter import JUDGE, Arbiter
from palestra.rewards.judging.questions import Question, Response, question
from palestra.rewards.judging.responses import response_of, task_of
from palestra.rewards.judging.rubrics import Rubric, read_rubrics
from palestra.rewards.judging.together import together
from palestra.rl.types import GroupRewardFn, Judgement, Provenance, Reward, Trajectory

GRADES: Mapping[str, str] = {
    "poor": "it does not do this at all",
    "weak": "it falls short in most of this",
    "fair": "it does about half of this",
    "good": "it does this with small flaws",
    "excellent": "it could not do this better",
}
"""Grades from the worst to the best, and what each means."""


@dataclass(frozen=True)
class Graded:
    """Implements ``rl.types.GroupRewardFn``: the mean grade over all axes, in [0, 1].

    ``alternatives`` holds several sets of rubrics, one axis a rubric. Each group is judged by one
    of them, which its id and the run's seed choose, so that no one wording can be learned by heart.
    """

    arbiter: Arbiter
    alternatives: Mapping[str, Sequence[Rubric]]
    max_response_chars: int

    async def __call__(self, trajectories: list[Trajectory]) -> list[Reward]:
        """Rewards in order. Raises ``Abstain`` or ``JudgeError``, as the arbiter does, for the
        group as a whole: siblings are graded alike or not at all."""
        name = self.chosen(trajectories[0].group_id)
        return await together(self._reward(t, name) for t in trajectories)

    def chosen(self, group_id: str) -> str:
        """Which of the alternatives a group is judged by."""
        return random.Random(f"{self.arbiter.seed}/graded/{group_id}").choice(
            sorted(self.alternatives)
        )

    def metrics(self, step: int) -> dict[str, float]:
        """Cost of the judge in a step."""
        return self.arbiter.metrics(step)

    async def _reward(self, trajectory: Trajectory, name: str) -> Reward:
        if failed(trajectory):
            return Reward(total=0.0, parts={})
        limit = self.max_response_chars
        task, shown = task_of(trajectory, limit), response_of(trajectory, limit)
        axes = self.alternatives[name]
        given = await together(
            self.arbiter.decide(grading(task, shown, axis, trajectory)) for axis in axes
        )
        parts = {axis.id: value_of(one.choice) for axis, one in zip(axes, given, strict=True)}
        by = _provenance(name, parts, given)
        return Reward(total=fmean(parts.values()), parts=parts, provenance={JUDGE: by})


def graded(
    *,
    arbiter: Arbiter,
    criteria: Sequence[str] = ("graded_user", "graded_reviewer"),
    max_response_chars: int = 6000,
) -> GroupRewardFn:
    """The mean grade of a judge over several axes, above what is verified; each of the files
    ``criteria`` is an alternative."""
    alternatives = {name: read_rubrics([name]) for name in criteria}
    return Graded(arbiter, alternatives, max_response_chars)


def failed(trajectory: Trajectory) -> bool:
    """Has a verifier said that it is wrong? What nobody verifies has not failed."""
    return trajectory.verdict is not None and not trajectory.verdict.solved


def grading(task: str, response: Response, axis: Rubric, trajectory: Trajectory) -> Question:
    """How good is a response on one axis? Answers: the grades, worst first."""
    return question(
        "Grade one side of a response to a task.",
        [axis],
        {"task": task, "response": response.text},
        answers=dict(GRADES),
        advice="Grade this side alone. Neither the length of the response nor what it says of "
        "itself is a reason.",
        about=(response.id,),
        step=trajectory.step,
        group_id=trajectory.group_id,
    )


def value_of(grade: int | None) -> float:
    """A grade, by index, as a number: evenly from 0 for the worst to 1 for the best."""
    if grade is None:
        raise ValueError("no grade was given")
    return grade / (len(GRADES) - 1)


def _provenance(name: str, parts: Mapping[str, float], given: Sequence[Judgement]) -> Provenance:
    opinions = [judgement.opinion for judgement in given]
    return Provenance(
        verifier=opinions[0].judge,
        version=f"rubrics {name}",
        evidence=", ".join(f"{axis} {value:g}" for axis, value in parts.items()),
        tokens=sum(opinion.input_tokens + opinion.output_tokens for opinion in opinions),
    )
