"""The game of 24: whole numbers, each used once, combined to a target."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from fractions import Fraction
from itertools import combinations

from palestra.envs.puzzle import Puzzle

LARGEST = {1: 6, 2: 6, 3: 10, 4: 25}
"""Numbers go up to it, by difficulty: three at the first, four then; ours."""

Term = tuple[Fraction, str]


def game24(rng: random.Random, difficulty: int) -> Puzzle:
    """Numbers that can be combined to 24, or at difficulty 4 to some number from 10 to 99."""
    size = 3 if difficulty == 1 else 4
    solution = None
    while solution is None:
        goal = rng.randint(10, 99) if difficulty == 4 else 24
        numbers = sorted(rng.randint(1, LARGEST[difficulty]) for _ in range(size))
        solution = next(solutions(numbers, goal), None)
    return Puzzle(
        prompt=f"Combine the numbers {', '.join(map(str, numbers))}, each exactly once, with + - * "
        f"/ and brackets so that the result is {goal}. The answer is one expression.",
        verifier="target",
        expected=json.dumps({"numbers": numbers, "target": goal}),
        solution=solution,
    )


def solutions(numbers: list[int], goal: int) -> Iterator[str]:
    """Expressions with that value; some differ in nothing but the order of terms."""
    yield from _solutions([(Fraction(n), str(n)) for n in numbers], goal)


def _solutions(terms: list[Term], goal: int) -> Iterator[str]:
    if len(terms) == 1:
        if terms[0][0] == goal:
            yield terms[0][1]
        return
    for i, j in combinations(range(len(terms)), 2):
        rest = [term for k, term in enumerate(terms) if k not in (i, j)]
        for made in _combined(terms[i], terms[j]):
            yield from _solutions([*rest, made], goal)


def _combined(first: Term, second: Term) -> Iterator[Term]:
    (a, x), (b, y) = first, second
    yield a + b, f"({x} + {y})"
    yield a * b, f"({x} * {y})"
    yield a - b, f"({x} - {y})"
    if a != b:
        yield b - a, f"({y} - {x})"
    if b:
        yield a / b, f"({x} / {y})"
    if a and a != b:
        yield b / a, f"({y} / {x})"
