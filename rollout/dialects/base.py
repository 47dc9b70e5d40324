"""What a tool-call format has to provide, and the part that all formats share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from palestra.rl.errors import UserError
from palestra.rl.types import Message, Tokenizer, ToolCall
from palestra.rollout.quoting import Markup, text_of


class Malformed(Exception):
    """The sampled ids are not a valid reply; the text says why, in words for the policy."""


class Dialect(ABC):
    """One format, delimited by two marker tokens that must exist as single control tokens."""

    open_marker = "<tool_call>"
    close_marker = "</tool_call>"

    @abstractmethod
    def parse_body(self, text: str) -> ToolCall:
        """Parse what stands between the markers; raise Malformed."""

    @abstractmethod
    def markup(self, call: ToolCall) -> Markup:
        """What a policy writes for ``call``, markers included; its ids parse back to ``call``."""

    def render(self, call: ToolCall) -> str:
        """The text of ``markup``."""
        return text_of(self.markup(call))

    def check(self, tokenizer: Tokenizer) -> None:
        """Raise UserError when the tokenizer lacks the markers, or any text can spell them."""
        for marker in (self.open_marker, self.close_marker):
            token = tokenizer.token_id(marker)
            if token is None or tokenizer.split(marker) != [token]:
                raise UserError(
                    f"the tokenizer has no token {marker}: choose another rollout.dialect"
                )

    def parse(self, token_ids: Sequence[int], tokenizer: Tokenizer) -> Message:
        """The reply as a message. The markers count only as token ids: text that merely spells
        them is content. ``token_ids`` ends with the end-of-turn id, which is not part of it."""
        opening = tokenizer.token_id(self.open_marker)
        closing = tokenizer.token_id(self.close_marker)
        ids = list(token_ids)
        if ids and ids[-1] == tokenizer.eos_id:
            ids.pop()
        content: list[int] = []
        calls: list[ToolCall] = []
        start: int | None = None
        for position, token in enumerate(ids):
            if token == opening:
                if start is not None:
                    raise Malformed("a tool call was opened inside a tool call")
                start = position + 1
            elif token == closing:
                if start is None:
                    raise Malformed("a tool call was closed but never opened")
                calls.append(self.parse_body(tokenizer.decode(ids[start:position])))
                start = None
            elif start is None:
                content.append(token)
        if start is not None:
            raise Malformed("a tool call was never closed")
        return Message(
            role="assistant", content=tokenizer.decode(content).strip(), calls=tuple(calls)
        )
