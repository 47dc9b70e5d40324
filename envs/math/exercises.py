"""Exercises whose answers are known because they were made backwards."""

from __future__ import annotations

import random
from collections.abc import Mapping
from fractions import Fraction

from palestra.envs.puzzle import Generator, Puzzle

OPERATIONS = ("+", "-", "*")


def arithmetic(rng: random.Random, difficulty: int) -> Puzzle:
    """A sum, difference and product of whole numbers, more of them the harder it is."""
    numbers = [rng.randint(2, 9 * difficulty) for _ in range(difficulty + 1)]
    text, value = str(numbers[0]), numbers[0]
    for number in numbers[1:]:
        sign = rng.choice(OPERATIONS)
        text, value = f"({text} {sign} {number})", _applied(sign, value, number)
    return Puzzle(
        prompt=f"What is {text}?", verifier="numeric", expected=str(value), solution=str(value)
    )


def linear(rng: random.Random, difficulty: int) -> Puzzle:
    """An equation in x; from difficulty 3 on the answer is a fraction."""
    bottom = rng.randint(2, 9) if difficulty > 2 else 1
    x = Fraction(rng.randint(-9, 9) * bottom + (difficulty > 2), bottom)
    a, c = rng.sample(range(2, 5 + 3 * difficulty), 2)
    c = c if difficulty % 2 == 0 else 0
    b = rng.randint(-20, 20)
    right = (a - c) * x + b
    left = f"{a}x {_signed(b)}"
    other = f"{c}x {_signed(right)}" if c else str(right)
    return Puzzle(
        prompt=f"Solve for x: {left} = {other}",
        verifier="numeric",
        expected=str(x),
        solution=str(x),
    )


def derivative(rng: random.Random, difficulty: int) -> Puzzle:
    """The derivative of a polynomial; from difficulty 3 on with a sine or an exponential."""
    coefficients = [rng.randint(1, 9) for _ in range(difficulty + 1)]
    terms = [f"{c}x^{k}" for k, c in enumerate(coefficients, 1)]
    slopes = [f"{c * k}x^{k - 1}" for k, c in enumerate(coefficients, 1)]
    if difficulty > 2:
        k = rng.randint(2, 9)
        extra = rng.choice([(rf"\sin({k}x)", rf"{k}\cos({k}x)"), (f"e^{{{k}x}}", f"{k}e^{{{k}x}}")])
        terms.append(extra[0])
        slopes.append(extra[1])
    answer = " + ".join(slopes)
    return Puzzle(
        prompt=f"Differentiate with respect to x: {' + '.join(terms)}",
        verifier="symbolic",
        expected=answer,
        solution=answer,
    )


def factors(rng: random.Random, difficulty: int) -> Puzzle:
    """The solutions of a polynomial equation with whole roots, as a set."""
    count = 2 if difficulty < 3 else 3
    roots = sorted(rng.sample(range(-3 * difficulty, 3 * difficulty + 1), count))
    polynomial = [1]
    for root in roots:
        shifted = [*polynomial, 0]
        polynomial = [c - root * d for c, d in zip(shifted, [0, *polynomial], strict=True)]
    powers = range(count, -1, -1)
    text = " ".join(f"{_signed(c)}x^{k}" for c, k in zip(polynomial, powers, strict=True) if c)
    answer = "\\{" + ", ".join(map(str, roots)) + "\\}"
    return Puzzle(
        prompt=f"Give the set of all solutions, in the form \\{{a, b\\}}: {text.lstrip('+ ')} = 0",
        verifier="symbolic",
        expected=answer,
        solution=answer,
    )


GENERATORS: Mapping[str, Generator] = {
    "arithmetic": arithmetic,
    "linear": linear,
    "derivative": derivative,
    "factors": factors,
}


def _applied(sign: str, a: int, b: int) -> int:
    return a + b if sign == "+" else a - b if sign == "-" else a * b


def _signed(value: int | Fraction) -> str:
    return f"- {-value}" if value < 0 else f"+ {value}"
