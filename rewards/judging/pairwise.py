"""The pairwise critic: siblings ranked by a judge against rubrics (Kimi K2 report, section 3.2.2).

The judge may be the policy itself: then this is what the report calls self-critique.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from palestra.rewards.config import PairwiseConfig
from palestra.rewards.judging.arbiter import JUDGE, Arbiter
from palestra.rewards.judging.bias import length_bias, position_bias
from palestra.rewards.judging.questions import MEETS, Question, Response, check, comparison
from palestra.rewards.judging.ranking import LOSS, TIE, WIN, Comparison, points, scores
from palestra.rewards.judging.responses import response_of, task_of
from palestra.rewards.judging.rubrics import Rubric, read_rubrics
from palestra.rewards.judging.schedule import pairs
from palestra.rewards.judging.together import together
from palestra.rl.errors import Abstain
from palestra.rl.types import GroupRewardFn, Provenance, Reward, Trajectory


def pairwise_critic(*, arbiter: Arbiter, pairwise: PairwiseConfig) -> GroupRewardFn:
    """Share of comparisons with its siblings that a response wins, by rubrics and a judge."""
    return PairwiseCritic(arbiter, read_rubrics(pairwise.criteria), pairwise)


class PairwiseCritic:
    """Implements ``rl.types.GroupRewardFn``: each sibling's share of comparisons won.

    A group is ranked as a whole or not at all: one comparison that could not be made, and the
    critic raises (``Abstain`` or ``JudgeError``, see ``Arbiter.decide``) instead of guessing.
    """

    def __init__(self, arbiter: Arbiter, rubrics: Sequence[Rubric], config: PairwiseConfig) -> None:
        self.arbiter = arbiter
        self.rubrics = [rubric for rubric in rubrics if not rubric.mandatory]
        self.mandatory = [rubric for rubric in rubrics if rubric.mandatory]
        self.config = config
        self._seen: dict[int, _Seen] = defaultdict(_Seen)

    async def __call__(self, trajectories: list[Trajectory]) -> list[Reward]:
        """Rewards of one group, in order; a single response has nobody to be compared with."""
        if len(trajectories) < 2:
            raise Abstain("a pairwise critic needs two responses")
        first = trajectories[0]
        task = task_of(first, self.config.max_response_chars)
        asking = _Asking(self.arbiter, task, step=first.step, group_id=first.group_id)
        comparisons = await self._compare(asking, trajectories)
        totals = scores(len(trajectories), comparisons)
        tokens = asking.tokens // len(trajectories)
        return [
            Reward(total=total, parts={}, provenance={JUDGE: self._provenance(total, tokens)})
            for total in totals
        ]

    def _provenance(self, total: float, tokens: int) -> Provenance:
        return Provenance(
            verifier=self.arbiter.judge.name,
            version=f"rubrics {', '.join(self.config.criteria)}",
            evidence=f"won {total:.0%} of its comparisons",
            tokens=tokens,
        )

    async def _compare(
        self, asking: _Asking, trajectories: Sequence[Trajectory]
    ) -> list[Comparison]:
        """All comparisons of a group: ``repeats`` of each pair that the schedule names."""
        config, first = self.config, trajectories[0]
        shown = [response_of(t, config.max_response_chars) for t in trajectories]
        passes = await together(asking.passes(one, self.mandatory) for one in shown)
        met = pairs(
            len(shown),
            all_up_to=config.all_pairs_up_to,
            opponents=config.opponents,
            seed=first.group_id,
        )
        made = await together(
            self._meet(asking, shown, passes, pair, repeat)
            for pair in met
            for repeat in range(config.repeats)
        )
        self._remember(first.step, shown, passes, made)
        return made

    async def _meet(
        self,
        asking: _Asking,
        shown: Sequence[Response],
        passes: Sequence[bool],
        pair: tuple[int, int],
        repeat: int,
    ) -> Comparison:
        left, right = pair
        if passes[left] != passes[right]:
            return Comparison(left=left, right=right, points=WIN if passes[left] else LOSS)
        if not self.rubrics:
            return Comparison(left=left, right=right, points=TIE)
        choices = await asking.both_orders(shown[left], shown[right], self.rubrics, repeat)
        return Comparison(left=left, right=right, points=points(*choices), choices=choices)

    def metrics(self, step: int) -> dict[str, float]:
        """Cost and bias of the judge in a step; what is known of earlier steps is dropped."""
        for old in [known for known in self._seen if known < step]:
            del self._seen[old]
        seen = self._seen[step]
        return {
            **self.arbiter.metrics(step),
            **position_bias(seen.comparisons),
            **length_bias(seen.lengths),
            "judge/comparisons": float(len(seen.comparisons)),
            "judge/mandatory_failures": float(seen.mandatory_failures),
        }

    def _remember(
        self,
        step: int,
        shown: Sequence[Response],
        passes: Sequence[bool],
        made: Sequence[Comparison],
    ) -> None:
        seen = self._seen[step]
        seen.comparisons += made
        seen.mandatory_failures += passes.count(False)
        seen.lengths += [
            (c.points, len(shown[c.left].text) - len(shown[c.right].text))
            for c in made
            if c.choices is not None
        ]


@dataclass(slots=True)
class _Seen:
    """What a step's groups have shown of the judge."""

    comparisons: list[Comparison] = field(default_factory=list)
    lengths: list[tuple[float, int]] = field(default_factory=list)
    mandatory_failures: int = 0


@dataclass(slots=True)
class _Asking:
    """One group's questions, and the tokens that they have taken."""

    arbiter: Arbiter
    task: str
    step: int
    group_id: str
    tokens: int = 0

    async def passes(self, response: Response, mandatory: Sequence[Rubric]) -> bool:
        """Does a response meet every mandatory rubric?"""
        if not mandatory:
            return True
        question = check(self.task, response, mandatory, step=self.step, group_id=self.group_id)
        return await self._choice(question) == MEETS

    async def both_orders(
        self, left: Response, right: Response, rubrics: Sequence[Rubric], repeat: int
    ) -> tuple[int, int]:
        """The choices with the left response shown first, and with the right one shown first."""
        orders = [(left, right), (right, left)]
        one, other = await together(
            self._choice(
                comparison(self.task, *order, rubrics, step=self.step, group_id=self.group_id),
                repeat,
            )
            for order in orders
        )
        return one, other

    async def _choice(self, question: Question, repeat: int = 0) -> int:
        judgement = await self.arbiter.decide(question, repeat=repeat)
        assert judgement.choice is not None
        self.tokens += judgement.opinion.input_tokens + judgement.opinion.output_tokens
        return judgement.choice
