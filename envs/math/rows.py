"""Rows of mathematics benchmarks as tasks: GSM8K, MATH, AIME and those that look like them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from palestra.envs.answer import answer_task
from palestra.envs.math.env import Math
from palestra.envs.rows import BadRow, text_field
from palestra.rewards.answers.numeric import number
from palestra.rl.types import Json, Task

LABELS = ("split", "level", "subject", "type", "difficulty")
IDS = ("task_id", "id", "unique_id")


def math_task(row: Mapping[str, Json]) -> Task:
    """A task from ``problem`` or ``question`` and the final answer: the field ``answer`` (what is
    behind ``####`` in it, if that is there), else the last ``\\boxed{}`` of ``solution``.

    A number is compared as one, anything else by computer algebra. Raises ``BadRow``.
    """
    prompt = text_field(row, "problem", "question", "prompt")
    answer = _answer(row)
    identity = next((str(row[name]) for name in IDS if name in row), prompt[:60])
    return answer_task(
        id=f"math/{identity}",
        env=Math.name,
        kind="math",
        prompt=prompt,
        verifier="numeric" if number(answer) is not None else "symbolic",
        expected=answer,
        reference=answer,
        labels={name: str(row[name]) for name in LABELS if name in row},
    )


def _answer(row: Mapping[str, Json]) -> str:
    given = row.get("answer")
    if isinstance(given, int | float) and not isinstance(given, bool):
        return str(given)
    if given is not None:
        answer = text_field(row, "answer").rpartition("####")[2].strip()
    else:
        answer = last_boxed(text_field(row, "solution"))
    if not answer:
        raise BadRow("field answer: empty")
    return answer


def last_boxed(text: str) -> str:
    """What stands in the last ``\\boxed{...}``, whose brackets may be nested; empty if in none."""
    *_, start = [0, *(match.end() for match in re.finditer(r"\\(?:boxed|fbox)\s*\{", text))]
    depth = 1
    for place in range(start, len(text)) if start else ():
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[start:place].strip()
    return ""
