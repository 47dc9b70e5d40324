"""Faithfulness by the opinion of a judge, sentence by sentence, for documents of any kind."""

from __future__ import annotations

from palestra.rewards.faithfulness.reward import context_text, reply_of
from palestra.rewards.faithfulness.sentences import sentences
from palestra.rewards.judging.arbiter import Arbiter
from palestra.rewards.judging.questions import Question, question
from palestra.rewards.judging.rubrics import Rubric
from palestra.rewards.judging.together import together
from palestra.rl.types import Sandbox, Trajectory

SUPPORTED, UNSUPPORTED, NO_FACT = 0, 1, 2
"""Answers to a question about a sentence, by index."""
FOLLOWS = Rubric(
    id="follows",
    text="Each fact in the sentence follows from the context: who knows nothing else would "
    "come to it. That it is true elsewhere, or likely, is not enough.",
)


class JudgedFaithfulness:
    """Share of the last reply's sentences with a fact that a judge finds in the context.

    Implements ``rl.types.RewardFn``; 1.0 where no sentence states a fact. The judge is asked once
    for each sentence, up to ``max_sentences``: what a longer reply says beyond them counts as
    unsupported. Raises as ``Arbiter.decide``.
    """

    def __init__(self, *, arbiter: Arbiter, max_sentences: int = 40) -> None:
        self.arbiter = arbiter
        self.max_sentences = max_sentences

    async def __call__(self, trajectory: Trajectory, box: Sandbox | None) -> float:
        """In [0, 1]."""
        context, said = context_text(trajectory), sentences(reply_of(trajectory))
        judgements = await together(
            self.arbiter.decide(support(context, said, number, trajectory))
            for number in range(len(said[: self.max_sentences]))
        )
        choices = [judgement.choice for judgement in judgements]
        choices += [UNSUPPORTED] * len(said[self.max_sentences :])
        facts = [choice for choice in choices if choice != NO_FACT]
        return facts.count(SUPPORTED) / len(facts) if facts else 1.0


def support(context: str, said: list[str], number: int, trajectory: Trajectory) -> Question:
    """Does the context support sentence ``number`` of what was said? The sentences before it are
    shown too, for words such as "it". Answers: ``SUPPORTED``, ``UNSUPPORTED``, ``NO_FACT``."""
    return question(
        "Say whether one sentence of a reply is supported by the context that the reply is about.",
        [FOLLOWS],
        {"context": context, "before": " ".join(said[:number]), "sentence": said[number]},
        answers={
            "supported": "every fact in the sentence follows from the context",
            "unsupported": "it states a fact that does not follow from the context",
            "nothing": "it states no fact at all",
        },
        advice="Only the sentence is judged. What stands before it tells what its words refer to, "
        "and supports nothing.",
        about=(trajectory.id,),
        step=trajectory.step,
        group_id=trajectory.group_id,
    )
