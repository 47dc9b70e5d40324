"""Sums in which letters stand for digits, with one solution."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from palestra.envs.puzzle import Puzzle

DIGITS = {1: 2, 2: 3, 3: 4, 4: 5}
LETTERS = {1: 4, 2: 5, 3: 6, 4: 10}
"""Digits of each number, and different letters at most, by difficulty: with more letters for the
same digits hardly a sum has only one solution."""

Column = tuple[str, str]
"""The letters that stand above each other in the terms, and the one below."""


def cryptarithm(rng: random.Random, difficulty: int) -> Puzzle:
    """Two words whose sum is a third."""
    low, high = 10 ** (DIGITS[difficulty] - 1), 10 ** DIGITS[difficulty] - 1
    while True:
        numbers = [rng.randint(low, high), rng.randint(low, high)]
        texts = [str(n) for n in (*numbers, sum(numbers))]
        digits = sorted(set("".join(texts)))
        letters = dict(zip(digits, rng.sample("ABCDEFGHIKLMNOPRSTUWXYZ", len(digits)), strict=True))
        first, second, total = ("".join(letters[d] for d in text) for text in texts)
        if len(digits) <= LETTERS[difficulty] and _has_one_solution([first, second], total):
            break
    named = sorted((letter, digit) for digit, letter in letters.items())
    return Puzzle(
        prompt=f"{first} + {second} = {total}\nEach letter is a digit, different letters are "
        "different digits, and no number begins with 0. Which digit is each letter? Answer in the "
        "form A=1, B=2.",
        verifier="cryptarithm",
        expected=json.dumps({"terms": [first, second], "sum": total}),
        solution=", ".join(f"{letter}={digit}" for letter, digit in named),
    )


def _has_one_solution(terms: Sequence[str], total: str) -> bool:
    return len(list(islice(solutions(terms, total), 2))) == 1


def solutions(terms: Sequence[str], total: str) -> Iterator[Mapping[str, int]]:
    """Every assignment of digits that solves it; no term is longer than the sum."""
    columns = [
        ("".join(term[-place] for term in terms if place <= len(term)), total[-place])
        for place in range(1, len(total) + 1)
    ]
    yield from _solutions(columns, {}, 0, frozenset(word[0] for word in (*terms, total)))


def _solutions(
    columns: Sequence[Column], digits: Mapping[str, int], carry: int, firsts: frozenset[str]
) -> Iterator[Mapping[str, int]]:
    """From the units up: the letters of a column decide the one below."""
    if not columns:
        if carry == 0:
            yield digits
        return
    (above, below), *rest = columns
    free = next((letter for letter in above if letter not in digits), None)
    if free is not None:
        for digit in _allowed(free, digits, firsts):
            yield from _solutions(columns, {**digits, free: digit}, carry, firsts)
        return
    carry, digit = divmod(sum(digits[letter] for letter in above) + carry, 10)
    if digits.get(below) == digit or (
        below not in digits and digit in _allowed(below, digits, firsts)
    ):
        yield from _solutions(rest, {**digits, below: digit}, carry, firsts)


def _allowed(letter: str, digits: Mapping[str, int], firsts: frozenset[str]) -> list[int]:
    taken = digits.values()
    return [digit for digit in range(letter in firsts, 10) if digit not in taken]
