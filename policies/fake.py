"""Stand-ins for unit tests of environments, rewards and loops: no model, no engine, no device.

The real job never uses them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from palestra.rl.errors import UserError
from palestra.rl.types import Batch, Completion, Sample, Sampling, Tokenizer

Script: TypeAlias = Callable[[str, Sampling], str]
"""(context as text, sampling) -> the text of the reply, without its end-of-turn token."""

LOGPROB = -0.1


class ScriptedPolicy:
    """Implements ``rl.types.Policy`` with replies that were written beforehand.

    A sequence holds the replies of one episode in order; every episode gets them from the first,
    however many run at once, and one that asks for more raises ``UserError``. A callable is asked
    every time. ``asked`` and ``returned`` keep what went through, in the order of the calls.

    Example: ``ScriptedPolicy(["<tool_call>...</tool_call>"], tokenizer)``
    """

    def __init__(self, replies: Sequence[str] | Script, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.asked: list[tuple[int, ...]] = []
        self.returned: list[Completion] = []
        self._replies = replies
        self._given: dict[tuple[int, ...], int] = {}

    async def generate(self, token_ids: Sequence[int], sampling: Sampling) -> Completion:
        """The next reply, cut after ``sampling.max_tokens`` ids."""
        context = tuple(token_ids)
        ids = [*self.tokenizer.encode(self._text(context, sampling)), self.tokenizer.eos_id]
        cut = tuple(ids[: sampling.max_tokens])
        completion = Completion(
            token_ids=cut,
            logprobs=(LOGPROB,) * len(cut),
            version=0,
            finish="stop" if len(cut) == len(ids) else "length",
        )
        self.asked.append(context)
        self.returned.append(completion)
        self._given[context + cut] = self._number(context) + 1
        return completion

    def _text(self, context: tuple[int, ...], sampling: Sampling) -> str:
        if callable(self._replies):
            return self._replies(self.tokenizer.decode(context), sampling)
        number = self._number(context)
        if number >= len(self._replies):
            raise UserError(
                f"ScriptedPolicy was asked for reply {number + 1} of an episode but has "
                f"{len(self._replies)}; give it more replies"
            )
        return self._replies[number]

    def _number(self, context: tuple[int, ...]) -> int:
        """How many replies this conversation holds already."""
        return max((n for ids, n in self._given.items() if context[: len(ids)] == ids), default=0)


class RecordingTrainer:
    """Implements ``rl.types.Trainer`` by writing down every call in ``calls``.

    ``learn`` and ``publish`` return the metrics given here; ``save`` makes an empty folder, so that
    a loop finds its checkpoints. Learner and reference give every token a log-probability by its
    id.

    Example: ``[("learn", batch), ("save", "checkpoints/step-1"), ("publish", 1)]``
    """

    def __init__(self, metrics: Mapping[str, float] | None = None) -> None:
        self.metrics = dict(metrics or {})
        self.calls: list[tuple[str, Batch | int | str]] = []
        self.scored: list[Sample] = []

    @property
    def batches(self) -> list[Batch]:
        """The batches that ``learn`` was given, in order."""
        return [what for _, what in self.calls if isinstance(what, Batch)]

    async def logprobs(
        self, sequences: Sequence[Sequence[int]], temperature: float = 1.0
    ) -> list[list[float]]:
        """Nothing is recorded: scoring changes nothing."""
        return [[-(token % 8) / 8 / temperature for token in ids] for ids in sequences]

    async def reference_logprobs(self, samples: Sequence[Sample]) -> list[list[float]]:
        """Record the samples in ``scored``."""
        self.scored += samples
        return [
            [-(token % 8) / 8 for token, own in zip(s.token_ids, s.loss_mask, strict=True) if own]
            for s in samples
        ]

    async def learn(self, batch: Batch) -> Mapping[str, float]:
        """Record the batch."""
        self.calls.append(("learn", batch))
        return self.metrics

    async def publish(self, version: int) -> Mapping[str, float]:
        """Record the version."""
        self.calls.append(("publish", version))
        return self.metrics

    async def save(self, folder: str) -> None:
        """Record the folder and make it."""
        self.calls.append(("save", folder))
        _make(Path(folder))

    async def load(self, folder: str) -> None:
        """Record the folder."""
        self.calls.append(("load", folder))


def _make(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
