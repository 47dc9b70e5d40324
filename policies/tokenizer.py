"""A Hugging Face tokenizer behind the small protocol that the rest of the project uses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from palestra.policies.spelling import Speller
from palestra.rl.errors import UserError
from palestra.rl.types import Message, Tool


class HFTokenizer:
    """Implements ``rl.types.Tokenizer``; ``folder`` is a Hugging Face model folder.

    Raises ``UserError`` for a folder that cannot serve, see also ``Speller``.
    """

    def __init__(self, folder: str | Path) -> None:
        if not (Path(folder) / "tokenizer_config.json").is_file():
            raise UserError(f"{folder} has no tokenizer (tokenizer_config.json is missing)")
        from transformers import AutoTokenizer

        self._hf = AutoTokenizer.from_pretrained(str(folder))
        if self._hf.eos_token_id is None:
            raise UserError(f"{folder}: the tokenizer names no eos_token")
        if not self._hf.chat_template:
            raise UserError(f"{folder}: the tokenizer has no chat template")
        self.eos_id: int = self._hf.eos_token_id
        self.vocab_size: int = len(self._hf)
        backend = getattr(self._hf, "backend_tokenizer", None)
        if backend is None:
            raise UserError(f"{folder}: the tokenizer has no tokenizer.json")
        self._speller = Speller(
            backend, self._hf.all_special_ids, end=self.eos_id, name=str(folder)
        )

    def encode(self, text: str) -> list[int]:
        """Ids of a text of ours, in which markers are control tokens; nothing is added."""
        ids: list[int] = self._hf.encode(text, add_special_tokens=False)
        return ids

    def spell(self, text: str) -> list[int]:
        """Ids of a text of others: it may spell markers, but never gives a control token."""
        return self._speller.ids(text)

    def split(self, text: str) -> list[str | int]:
        """The control tokens of a text of ours as ids, and the text between them."""
        return self._speller.split(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids, special tokens included, byte for byte."""
        text: str = self._hf.decode(
            list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text

    def render(self, messages: Sequence[Message], tools: Sequence[Tool], *, reply: bool) -> str:
        """The chat template's text; with ``reply`` it ends where a reply would begin. Raises
        ``UserError`` for messages that the template refuses."""
        from jinja2 import TemplateError

        try:
            text: str = self._hf.apply_chat_template(
                [_as_dict(message) for message in messages],
                tools=[_as_schema(tool) for tool in tools] or None,
                tokenize=False,
                add_generation_prompt=reply,
            )
        except TemplateError as error:
            raise UserError(f"the chat template refuses these messages: {error}") from error
        return text

    def token_id(self, token: str) -> int | None:
        """Id of a token that stands in the vocabulary as a whole, or None."""
        found = self._hf.get_vocab().get(token)
        return None if found is None else int(found)


def _as_dict(message: Message) -> dict[str, Any]:
    shown: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.calls:
        shown["tool_calls"] = [
            {"type": "function", "function": {"name": c.name, "arguments": dict(c.arguments)}}
            for c in message.calls
        ]
    return shown


def _as_schema(tool: Tool) -> dict[str, Any]:
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": dict(tool.parameters),
    }
    return {"type": "function", "function": function}
