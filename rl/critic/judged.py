"""Verdicts as episodes: the critic's replies to a question whose answer is known, worth 1 or 0."""

from __future__ import annotations

from collections.abc import Sequence

from palestra.rl.types import (
    Group,
    Judgement,
    Outcome,
    Provenance,
    Reward,
    Stop,
    Trajectory,
)

PART = "right_verdict"


def score(judgement: Judgement, answer: int, tie: int) -> float:
    """1 for the right answer, 1/2 for a tie, 0 for the wrong one and for no verdict at all."""
    return 1.0 if judgement.choice == answer else 0.5 if judgement.choice == tie else 0.0


def judged_group(
    judgements: Sequence[Judgement], answer: int, task_id: str, temperature: float
) -> Group:
    """Replies to one question as siblings, ``answer`` being the right one: 1 for it, else 0.

    Their tokens are exactly those that the policy sampled. Raises ``ValueError`` for the opinion of
    a judge that is not the policy.
    """
    first = judgements[0]
    group_id = f"{first.group_id}/critic/{'-'.join(first.about)}"
    return Group(
        id=group_id,
        task_id=task_id,
        trajectories=tuple(
            _episode(f"{group_id}/{number:03d}", group_id, task_id, judgement, answer, temperature)
            for number, judgement in enumerate(judgements)
        ),
    )


def _episode(
    name: str,
    group_id: str,
    task_id: str,
    judgement: Judgement,
    answer: int,
    temperature: float,
) -> Trajectory:
    turn = judgement.opinion.turn
    if turn is None:
        raise ValueError(f"{judgement.opinion.judge} is not the policy: nothing can learn from it")
    right = float(judgement.choice == answer)
    by = Provenance(
        verifier="verified pair",
        version=judgement.opinion.judge,
        evidence=f"the verifier passed {judgement.about[answer]} and failed its sibling",
    )
    return Trajectory(
        id=name,
        group_id=group_id,
        task_id=task_id,
        step=judgement.step,
        prompt=judgement.messages,
        turns=(turn,),
        stop=Stop.SUBMITTED,
        outcome=Outcome.GRADED,
        temperature=temperature,
        reward=Reward(total=right, parts={PART: right}, provenance={PART: by}),
    )
