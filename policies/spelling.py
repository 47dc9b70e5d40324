"""Text as nothing but text: a copy of a tokenizer in which no text spells a control token.

A chat template's markers are tokens, and an ordinary tokenizer finds them wherever their text
stands: in a file, in a test's output, in a task. What others wrote is encoded here instead.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from typing import Any

from palestra.rl.errors import UserError

_ORDINARY = "def f(x):\n    return x + 1  # 1 of 2 tests passed\n"
_POINTS = [*range(0x801), *range(0x1000, 0x11000, 0x1000), *range(0x40000, 0x140000, 0x40000)]
_EVERY_BYTE = "".join(map(chr, _POINTS))
"""Every byte that occurs in UTF-8 occurs in the UTF-8 of this text."""


class Speller:
    """Encodes text without its control tokens.

    ``control`` holds the ids of every added token, special or not, save those of mere white space,
    and the ``special`` ids. ``backend`` is a ``tokenizers.Tokenizer``, ``end`` its end-of-turn id;
    ``name`` stands in errors. Raises ``UserError`` for a tokenizer of which no copy can be made
    that gives ordinary text the same ids and no text a control id.
    """

    def __init__(self, backend: Any, special: Iterable[int], *, end: int, name: str) -> None:
        plan = json.loads(backend.to_str())
        added = {
            t["content"]: t["id"] for t in plan["added_tokens"] if t["content"].strip(" \n\t▁")
        }
        self.control = frozenset([end, *special, *added.values()])
        self._backend = backend
        self._plain = _without(plan, set(added), name)
        self._check(end, name)

    def ids(self, text: str) -> list[int]:
        """Ids of the text, none of them a control token's; half a surrogate pair counts as "?"."""
        clean = text.encode(errors="replace").decode()
        ids: list[int] = self._plain.encode(clean, add_special_tokens=False).ids
        return ids

    def split(self, text: str) -> list[str | int]:
        """The control tokens of the text as ids, and the text between them."""
        found = self._backend.encode(text, add_special_tokens=False)
        pieces: list[str | int] = []
        at = 0
        for token, (start, stop) in zip(found.ids, found.offsets, strict=True):
            if token in self.control:
                pieces += [text[at:start], token]
                at = stop
        pieces.append(text[at:])
        return [piece for piece in pieces if piece != ""]

    def _check(self, end: int, name: str) -> None:
        markers = {i: self._backend.decode([i], skip_special_tokens=False) for i in self.control}
        if any(self.control & {*self.ids(text)} for text in [*markers.values(), _EVERY_BYTE]):
            raise UserError(f"{name}: ordinary text spells control tokens of this tokenizer")
        whole = self._backend.encode(markers[end] + _ORDINARY, add_special_tokens=False).ids
        if whole != [end, *self.ids(_ORDINARY)]:
            raise UserError(f"{name}: this tokenizer's ids depend on where a text begins")


def _without(plan: dict[str, Any], control: set[str], name: str) -> Any:
    """The tokenizer of ``plan`` with names for its ``control`` tokens that nobody can guess:
    removing them would move the ids of others."""
    from tokenizers import Tokenizer

    model = plan["model"]
    if model["type"] != "BPE":
        raise UserError(f"{name}: only BPE tokenizers are supported, this is {model['type']}")
    names = {token: secrets.token_hex(32) for token in control}
    for token in plan["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    model["vocab"] = {names.get(token, token): i for token, i in model["vocab"].items()}
    model["merges"] = [m for m in model["merges"] if control.isdisjoint([*m, "".join(m)])]
    model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    return Tokenizer.from_str(json.dumps(plan | {"truncation": None, "padding": None}))
