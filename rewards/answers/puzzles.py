"""Answers that solve a puzzle: any solution is right, not only the one its maker had in mind.

What is read is digits, letters and the four operations; nothing is evaluated as code.
"""

from __future__ import annotations

import ast
import json
import operator
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from palestra.rl.errors import TaskError

OPERATIONS: Mapping[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
LONGEST = 1000


async def target(text: str, expected: str) -> str:
    """Right when the expression uses each of ``numbers`` once and has the value ``target``.

    ``expected`` is JSON: ``{"numbers": [4, 7, 8, 8], "target": 24}``, the game of 24.
    """
    numbers, goal = _spec(expected, "numbers", "target")
    try:
        used: list[int] = []
        value = _value(_expression(text), used)
    except (ValueError, ZeroDivisionError, RecursionError):
        return "not an expression of + - * / and whole numbers"
    if sorted(used) != sorted(numbers):
        return "it does not use each number once"
    return "" if value == goal else "another value"


async def sudoku(text: str, expected: str) -> str:
    """Right when the grid keeps the clues, and each row, column and block has each digit once.

    ``expected`` is JSON: ``{"rows": ["1..4", ...], "block": [2, 2]}``, a dot where no clue is and
    the height and width of a block.
    """
    clues, (height, width) = _spec(expected, "rows", "block")
    size = height * width
    rows = ["".join(line.split()) for line in text.strip().splitlines()]
    if [len(row) for row in rows] != [size] * size:
        return f"not {size} rows of {size} digits"
    if not re.fullmatch("".join(clues), "".join(rows)):  # a dot matches any digit
        return "a clue was changed"
    columns = ["".join(column) for column in zip(*rows, strict=True)]
    blocks = [
        "".join(row[x : x + width] for row in rows[y : y + height])
        for y in range(0, size, height)
        for x in range(0, size, width)
    ]
    digits = sorted("123456789"[:size])
    unlike = [unit for unit in (*rows, *columns, *blocks) if sorted(unit) != digits]
    return "a row, column or block lacks a digit" if unlike else ""


async def cryptarithm(text: str, expected: str) -> str:
    """Right when letters stand for different digits, no number begins with 0, and the sum holds.

    ``expected`` is JSON: ``{"terms": ["SEND", "MORE"], "sum": "MONEY"}``; an answer is
    ``S=9, E=5, ...``.
    """
    summands, result = _spec(expected, "terms", "sum")
    words = [*summands, result]
    pairs = re.findall(r"([A-Z])\s*=\s*(\d)", text[:LONGEST], re.ASCII)
    rest = re.sub(r"[A-Z]\s*=\s*\d|[\s,;]", "", text[:LONGEST], flags=re.ASCII)
    digits = dict(pairs)
    if (
        rest
        or len(text) > LONGEST
        or len(digits) != len(pairs)
        or set(digits) != set("".join(words))
    ):
        return "not one digit for each letter, as in A=1, B=2"
    if len(set(digits.values())) != len(digits):
        return "two letters have the same digit"
    if any(digits[word[0]] == "0" for word in words):
        return "a number begins with 0"
    *terms, total = (int("".join(digits[letter] for letter in word)) for word in words)
    return "" if sum(terms) == total else "the sum does not hold"


def _spec(expected: str, *fields: str) -> list[Any]:
    """The fields of a JSON object."""
    try:
        found = json.loads(expected)
        return [found[name] for name in fields]
    except (ValueError, TypeError, KeyError) as error:
        raise TaskError(f"expected has not the form that its verifier reads: {error}") from error


def _expression(text: str) -> ast.expr:
    text = text.strip()
    if len(text) > LONGEST or not re.fullmatch(r"[\d+\-*/() ]+", text, re.ASCII):
        raise ValueError("other characters")
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, MemoryError) as error:
        raise ValueError("not an expression") from error


def _value(node: ast.expr, used: list[int]) -> Fraction:
    """The value of an expression; the numbers that it has are added to ``used``."""
    if isinstance(node, ast.Constant) and type(node.value) is int:
        used.append(node.value)
        return Fraction(node.value)
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
        left, right = _value(node.left, used), _value(node.right, used)
        return OPERATIONS[type(node.op)](left, right)
    raise ValueError("not allowed")
