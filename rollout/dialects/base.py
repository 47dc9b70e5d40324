"""What a tool-call format has to provide, and the part that all formats share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from palestra.rl.errors import UserError
from palestra.rl.types import Message, Tokenizer, ToolCall
from palestra.rollout.quoting import Markup, Quote, text_of


class Malformed(Exception):
    """The sampled ids are not a valid reply; the text says why, in words for the policy."""


class Inexpressible(UserError):
    """A call that the format cannot write so that it is read back as the same call."""


class Dialect(ABC):
    """One format, delimited by two marker tokens that must exist as single control tokens."""

    open_marker = "<tool_call>"
    close_marker = "</tool_call>"

    @abstractmethod
    def parse_body(self, text: str) -> ToolCall:
        """Parse what stands between the markers; raise Malformed."""

    @abstractmethod
    def body(self, call: ToolCall) -> Markup:
        """What stands between the markers, values quoted; it need not be read back as ``call``.

        May raise Inexpressible.
        """

    def markup(self, call: ToolCall) -> Markup:
        """What a policy writes for ``call``, markers included; its ids parse back to ``call``.

        Raises Inexpressible when the format has no way to write it.
        """
        body = self.body(call)
        try:
            read = self.parse_body(text_of(body).encode(errors="replace").decode())
        except Malformed as error:
            raise Inexpressible(f"{call.name}: {error}") from None
        if read != self.understood(call):
            raise Inexpressible(
                f"{call.name}: what it is given would be read back as something else"
            )
        return [self.open_marker, *body, self.close_marker]

    def understood(self, call: ToolCall) -> ToolCall:
        """``call`` as a reader of the format gets it."""
        return call

    def render(self, call: ToolCall) -> str:
        """The text of ``markup``, for people and scripts. Raises Inexpressible also when a value
        holds a marker: text alone cannot tell it from a real one, only ids can."""
        markup = self.markup(call)
        quoted = text_of([part for part in markup if isinstance(part, Quote)])
        for marker in (self.open_marker, self.close_marker):
            if marker in quoted:
                raise Inexpressible(f"{call.name}: the arguments hold {marker}")
        return text_of(markup)

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
