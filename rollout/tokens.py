"""Messages to token ids: the only place that knows chat templates.

A conversation grows by appending ids. Nothing is ever decoded and tokenised again: what a tool
answered is rendered on its own, as the text that the template would put after the reply.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from palestra.rl.errors import UserError
from palestra.rl.types import Demonstration, Message, Sample, Tokenizer, Tool
from palestra.rollout.dialects import Dialect

_SENTINEL = "palestra-sentinel-reply"
_ASK = Message(role="user", content="palestra-sentinel-ask")


class Chat:
    """Renders prompts, observations and demonstrations for one tokenizer and dialect."""

    def __init__(self, tokenizer: Tokenizer, dialect: Dialect) -> None:
        dialect.check(tokenizer)
        self.tokenizer = tokenizer
        self.dialect = dialect
        self._eos = tokenizer.decode([tokenizer.eos_id])
        self._observe = lru_cache(maxsize=4096)(self._observation_ids)

    def prompt(self, messages: Sequence[Message], tools: Sequence[Tool]) -> list[int]:
        """Ids up to the point where the policy's first reply begins."""
        return self.tokenizer.encode(self.tokenizer.render(messages, tools, reply=True))

    def observation(self, texts: Sequence[str]) -> list[int]:
        """Ids that follow a reply (its end-of-turn id excluded): one tool message per text, then
        the start of the next reply."""
        return list(self._observe(tuple(texts)))

    def _observation_ids(self, texts: tuple[str, ...]) -> tuple[int, ...]:
        head = (_ASK, Message(role="assistant", content=_SENTINEL))
        tools = tuple(Message(role="tool", content=text) for text in texts)
        rendered = self.tokenizer.render((*head, *tools), (), reply=True)
        _, found, rest = rendered.partition(_SENTINEL)
        _, closed, suffix = rest.partition(self._eos)
        if not found or not closed:
            raise UserError(
                f"the chat template does not end a reply with {self._eos!r}; "
                "set the tokenizer's eos_token to its end-of-turn token"
            )
        return tuple(self.tokenizer.encode(suffix))

    def demonstration(self, demo: Demonstration, tools: Sequence[Tool]) -> Sample:
        """A supervised sample: loss weight 1 on what the assistant wrote, 0 elsewhere."""
        ids = self.prompt(demo.prompt, tools)
        weights = [0.0] * len(ids)
        for index, step in enumerate(demo.steps):
            text = step.message.content + "".join(map(self.dialect.render, step.message.calls))
            reply = [*self.tokenizer.encode(text), self.tokenizer.eos_id]
            ids += reply
            weights += [float(step.learn)] * len(reply)
            if index + 1 < len(demo.steps):
                answer = self.observation([step.observation])
                ids += answer
                weights += [0.0] * len(answer)
        return supervised(ids, weights)


def supervised(ids: Sequence[int], weights: Sequence[float]) -> Sample:
    """A sample without policy gradient: only the supervised loss, weighted per token."""
    size = len(ids)
    return Sample(
        token_ids=tuple(ids),
        loss_mask=(False,) * size,
        logprobs=(0.0,) * size,
        advantages=(0.0,) * size,
        ptx=tuple(weights),
    )
