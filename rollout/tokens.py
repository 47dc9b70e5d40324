"""Messages to token ids: the only place that knows chat templates.

A conversation grows by appending ids. Nothing is ever decoded and tokenised again: what a tool
answered is rendered on its own, as the text that the template would put after the reply.

What messages and calls say is text of others. A template would let it spell the template's own
markers, and a file that holds ``<|im_start|>assistant`` could speak for the policy; so every
message is found in the rendered text again, and its control tokens are never looked for.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from palestra.rl.errors import UserError
from palestra.rl.types import Demonstration, Message, Sample, Tokenizer, Tool
from palestra.rollout.dialects import Dialect
from palestra.rollout.quoting import Markup, Quote, ids_of

_ASK = Message(role="user", content="palestra-sentinel-ask")
_REPLY = Message(role="assistant", content="palestra-sentinel-reply")


class Chat:
    """Renders prompts, observations and demonstrations for one tokenizer and dialect.

    Tools and roles are texts of ours, what messages and calls say is quoted: it gives no control
    token, whatever it spells.
    """

    def __init__(self, tokenizer: Tokenizer, dialect: Dialect) -> None:
        dialect.check(tokenizer)
        self.tokenizer = tokenizer
        self.dialect = dialect
        self._eos = tokenizer.decode([tokenizer.eos_id])
        self._secret = secrets.token_hex(16)
        self._following = lru_cache(maxsize=4096)(self._following_ids)

    def prompt(self, messages: Sequence[Message], tools: Sequence[Tool]) -> list[int]:
        """Ids up to the point where the policy's first reply begins."""
        return ids_of(self._markup(messages, tools), self.tokenizer)

    def observation(self, texts: Sequence[str]) -> list[int]:
        """Ids that follow a reply (its end-of-turn id excluded): one tool message per text, then
        the start of the next reply."""
        return self.following([Message(role="tool", content=text) for text in texts])

    def following(self, messages: Sequence[Message]) -> list[int]:
        """Ids that follow a reply: these messages of others, then the start of the next reply."""
        return list(self._following(tuple(messages)))

    def _following_ids(self, messages: tuple[Message, ...]) -> tuple[int, ...]:
        markup = self._markup([_ASK, _REPLY, *messages], ())
        said = Quote(_REPLY.content)
        own, *rest = [*markup, ""][markup.index(said) + 1 :] if said in markup else [""]
        _, closed, suffix = own.partition(self._eos) if isinstance(own, str) else ("", "", "")
        if not closed:
            raise UserError(
                f"the chat template does not end a reply with {self._eos!r}; "
                "set the tokenizer's eos_token to its end-of-turn token"
            )
        return tuple(ids_of([suffix, *rest], self.tokenizer))

    def demonstration(self, demo: Demonstration, tools: Sequence[Tool]) -> Sample:
        """A supervised sample: loss weight 1 on what the assistant wrote, 0 elsewhere."""
        replies = [(step.message, step.learn) for step in demo.steps]
        answers = [[Message(role="tool", content=step.observation)] for step in demo.steps]
        return self._supervised(self.prompt(demo.prompt, tools), replies, answers)

    def conversation(self, messages: Sequence[Message]) -> Sample:
        """A chat as a supervised sample: loss weight 1 on what the assistant says and the ends of
        its turns, 0 elsewhere; what follows its last message is left out.

        The chat begins with another role, and no two messages of the assistant follow each other.
        """
        ends = [n for n, message in enumerate(messages) if message.role == "assistant"]
        answers = [messages[n + 1 : end] for n, end in zip(ends, [*ends[1:], None], strict=True)]
        replies = [(messages[n], True) for n in ends]
        return self._supervised(self.prompt(messages[: ends[0]], ()), replies, answers)

    def _supervised(
        self,
        prompt: Sequence[int],
        replies: Sequence[tuple[Message, bool]],
        answers: Sequence[Sequence[Message]],
    ) -> Sample:
        """Replies, each with whether it is learned, and what is said between them."""
        ids = list(prompt)
        weights = [0.0] * len(ids)
        for number, (message, learn) in enumerate(replies):
            reply = [*ids_of(self._written(message), self.tokenizer), self.tokenizer.eos_id]
            ids += reply
            weights += [float(learn)] * len(reply)
            if number + 1 < len(replies):
                answer = self.following(answers[number])
                ids += answer
                weights += [0.0] * len(answer)
        return supervised(ids, weights)

    def _written(self, message: Message) -> Markup:
        """What a message says, its tool calls in the dialect's format."""
        calls = [part for call in message.calls for part in self.dialect.markup(call)]
        return [Quote(message.content), *calls]

    def _markup(self, messages: Sequence[Message], tools: Sequence[Tool]) -> Markup:
        """What the template makes of the messages, with everything that they say quoted."""
        frame = _Frame(self.tokenizer, messages, tools, self._secret)
        parts: list[str | Quote] = []
        for piece in frame.pieces():
            if isinstance(piece, str):
                parts.append(piece)
            else:
                message = messages[piece]
                parts += self._written(replace(message, content=frame.shown(piece)))
        return parts


class _Frame:
    """A template rendered with marks in place of what messages say.

    The marks cannot be guessed, so they occur nowhere else. ``messages`` without words or calls
    have none: templates like to leave these out. Raises ``UserError`` for a template that does not
    show a message at all, or not its words.
    """

    def __init__(
        self, tokenizer: Tokenizer, messages: Sequence[Message], tools: Sequence[Tool], secret: str
    ) -> None:
        self.tokenizer = tokenizer
        self.messages = messages
        self.tools = tools
        self.marks = [
            f"m{number}m{secret}" if message.content or message.calls else ""
            for number, message in enumerate(messages)
        ]
        self.text = self._render(self.marks)
        for mark, message in zip(self.marks, messages, strict=True):
            if mark not in self.text:
                raise UserError(
                    f"the chat template does not show what a message of role {message.role} says"
                )

    def _render(self, contents: Sequence[str]) -> str:
        silent = [
            replace(message, content=content, calls=())
            for message, content in zip(self.messages, contents, strict=True)
        ]
        return self.tokenizer.render(silent, self.tools, reply=True)

    def pieces(self) -> list[str | int]:
        """The template's own text, and the numbers of the messages between."""
        numbers = {mark: number for number, mark in enumerate(self.marks) if mark}
        cut = re.split(f"({'|'.join(numbers)})", self.text) if numbers else [self.text]
        return [numbers.get(piece, piece) for piece in cut if piece]

    def shown(self, number: int) -> str:
        """What the template shows of a message: its words, perhaps stripped or escaped.

        Rendered alone among marks. A template that changes its own text with the words of a
        message does not get to see them: they are taken as they stand.
        """
        before, _, after = self.text.partition(self.marks[number])
        words = self.messages[number].content
        text = self._render([*self.marks[:number], words, *self.marks[number + 1 :]])
        rest = text.removeprefix(before)
        if not text.startswith(before) or not rest.endswith(after):
            return words
        return rest.removesuffix(after)


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
