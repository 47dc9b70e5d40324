"""Texts that must obey instructions which code can check (Kimi K2 section 3.2.1, part a and c)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from palestra.rewards.false_claim import claims
from palestra.rl.errors import TaskError

Rule = Callable[..., bool]


def words(text: str, *, least: int = 0, most: int = 10**9) -> bool:
    """Between ``least`` and ``most`` words."""
    return least <= len(text.split()) <= most


def contains(text: str, *, word: str, times: int = 1) -> bool:
    """The word stands in it at least so many times, whatever its case."""
    return len(_found(word, text)) >= times


def avoids(text: str, *, word: str) -> bool:
    """The word does not stand in it."""
    return not _found(word, text)


def ends(text: str, *, phrase: str) -> bool:
    """It ends with exactly these words."""
    return text.rstrip().endswith(phrase)


def lower(text: str) -> bool:
    """It has letters, and no capital among them."""
    return text == text.lower() and text != text.upper()


def paragraphs(text: str, *, count: int) -> bool:
    """So many paragraphs, with empty lines between them."""
    return len([part for part in re.split(r"\n\s*\n", text.strip()) if part.strip()]) == count


def bullets(text: str, *, count: int) -> bool:
    """So many lines that begin with ``- ``."""
    return len(re.findall(r"^- \S", text, re.MULTILINE)) == count


def keys(text: str, *, names: list[str]) -> bool:
    """A JSON object with these keys, all texts that are not empty, and nothing around it."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return False
    if not isinstance(found, dict) or sorted(found) != sorted(names):
        return False
    return all(isinstance(value, str) and value.strip() for value in found.values())


RULES: Mapping[str, Rule] = {
    rule.__name__: rule
    for rule in (words, contains, avoids, ends, lower, paragraphs, bullets, keys)
}


async def constraints(text: str, expected: str) -> str:
    """Right when every rule holds. ``expected`` is JSON, rules by name with their arguments:
    ``[["words", {"most": 50}], ["lower", {}]]``.

    A text that says of itself that it obeys and does not is named as such.
    """
    missed = broken(text, expected)
    if not missed:
        return ""
    claim = "it claims to obey, but " if claims(text) else ""
    return f"{claim}not obeyed: {', '.join(missed)}"


def broken(text: str, expected: str) -> list[str]:
    """The rules that a text does not obey, for people."""
    return [
        _named(name, given) for name, given in rules_in(expected) if not RULES[name](text, **given)
    ]


def rules_in(expected: str) -> list[tuple[str, dict[str, Any]]]:
    """Names of rules and their arguments; raises ``TaskError`` for anything else."""
    try:
        rules = [(str(name), dict(given)) for name, given in json.loads(expected)]
        for name, given in rules:
            RULES[name]("", **given)
    except (ValueError, TypeError, KeyError) as error:
        raise TaskError(f"expected is no list of rules: {error}") from error
    return rules


def _named(name: str, given: Mapping[str, Any]) -> str:
    return " ".join([name, *(f"{key}={value}" for key, value in given.items())])


def _found(word: str, text: str) -> list[str]:
    return re.findall(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE)
