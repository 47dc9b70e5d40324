"""Demonstrations of the repair environment, written from what validation already measured."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from palestra.envs.feedback import all_passed
from palestra.rl.types import Demonstration, DemoStep, Json, Message, Task, ToolCall

TEST_FIRST = 0.3


@dataclass(frozen=True, kw_only=True)
class LineEdit:
    """One broken line of a task: its file, 1-based number, and both texts of it.

    Example: ``LineEdit(path="clamp.py", line=2, original="    if x < low:", broken="    if x >
    low:")``
    """

    path: str
    line: int
    original: str
    broken: str


def labels(edits: Sequence[LineEdit], observed: str) -> dict[str, str]:
    """The labels of a task that ``demonstrate`` reads back."""
    rows = [[edit.path, edit.line, edit.original, edit.broken] for edit in edits]
    return {"edits": json.dumps(rows), "observed": observed, "mutations": str(len(edits))}


def edits_of(task: Task) -> tuple[LineEdit, ...]:
    """The broken lines of a task, from its labels; empty when it has none."""
    rows = json.loads(task.labels.get("edits", "[]"))
    return tuple(LineEdit(path=p, line=n, original=o, broken=b) for p, n, o, b in rows)


def demonstrate(
    tasks: Sequence[Task],
    seed: int,
    *,
    mistakes: float,
    careless: float,
    gives_up: float,
    recites: float,
    prompt: Callable[[Task], tuple[Message, ...]],
) -> Iterator[Demonstration]:
    """One demonstration per task, in order; each depends on ``seed`` and its own task only."""
    neighbours: dict[tuple[str, str], list[Task]] = {}
    for task in tasks:
        edits = edits_of(task)
        if len(edits) == 1:
            neighbours.setdefault(_function(task, edits[0]), []).append(task)
    for task in tasks:
        edits = edits_of(task)
        if not edits:
            continue
        rng = random.Random(f"{seed}/{task.id}")
        wrong: list[Attempt] = []
        if task.visible and rng.random() < mistakes:
            wrong = _wrong(task, edits[-1], neighbours.get(_function(task, edits[-1]), []), rng)
        test_first = rng.random() < TEST_FIRST
        verify = bool(wrong) or rng.random() >= careless
        if not verify and rng.random() < gives_up:
            edits = ()
        thought = _recited(task, edits, seed, recites)
        steps = tuple(_steps(task, edits, wrong, thought, test_first=test_first, verify=verify))
        yield Demonstration(task_id=task.id, prompt=prompt(task), steps=steps)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A replacement that does not repair, and what the tests say after it."""

    line: int
    text: str
    observed: str


def _wrong(
    task: Task, edit: LineEdit, neighbours: Sequence[Task], rng: random.Random
) -> list[Attempt]:
    """One or two attempts on different lines: a sound line written again, which changes nothing,
    or the broken one broken otherwise. What the tests then say was measured with the tasks."""
    by_line: dict[int, list[Task]] = {}
    observed = ""
    for other in neighbours:
        [theirs] = edits_of(other)
        if (theirs.line, theirs.broken) == (edit.line, edit.broken):
            observed = other.labels[
                "observed"
            ]  # also when a task with two bugs is down to this one
        else:
            by_line.setdefault(theirs.line, []).append(other)
    if not observed:
        return []
    attempts: list[Attempt] = []
    for line in rng.sample(sorted(by_line), min(len(by_line), rng.choice((1, 2)))):
        other = rng.choice(by_line[line])
        [theirs] = edits_of(other)
        same = line == edit.line
        observed = other.labels["observed"] if same else observed
        text = theirs.broken if same else theirs.original
        attempts.append(Attempt(line=line, text=text, observed=observed))
    return attempts


def _function(task: Task, edit: LineEdit) -> tuple[str, str]:
    return (task.labels.get("function", ""), edit.path)


def _steps(
    task: Task,
    edits: Sequence[LineEdit],
    wrong: Sequence[Attempt],
    thought: str,
    *,
    test_first: bool,
    verify: bool,
) -> Iterator[DemoStep]:
    """No edits at all is giving up."""
    if test_first and task.visible:
        yield _step("test", task.labels["observed"])
    for edit in edits[:-1]:
        yield _replace(task, edit, edit.line, edit.original)
    for attempt in wrong:
        yield _replace(task, edits[-1], attempt.line, attempt.text, learn=False)
        yield _step("test", attempt.observed)
    if edits:
        yield _replace(task, edits[-1], edits[-1].line, edits[-1].original, thought=thought)
    if task.visible and verify:
        yield _step("test", all_passed(len(task.visible)))
    yield _step("submit", "")


def _recited(task: Task, edits: Sequence[LineEdit], seed: int, share: float) -> str:
    """Lines of the file to be repaired, from its first to any of them; empty in other cases."""
    rng = random.Random(f"{seed}/{task.id}/recites")
    if not edits or rng.random() >= share:
        return ""
    lines = task.files[edits[-1].path].splitlines()
    return "\n".join(lines[: rng.randint(1, len(lines))])


def _replace(
    task: Task, edit: LineEdit, line: int, text: str, *, learn: bool = True, thought: str = ""
) -> DemoStep:
    arguments: dict[str, Json] = {"line": str(line), "text": text}
    if len(task.artifacts) > 1:
        arguments["path"] = edit.path
    return _step("replace", "ok", learn=learn, thought=thought, **arguments)


def _step(
    name: str, observation: str, *, learn: bool = True, thought: str = "", **arguments: Json
) -> DemoStep:
    call = ToolCall(name=name, arguments=arguments)
    message = Message(role="assistant", content=thought, calls=(call,))
    return DemoStep(message=message, observation=observation, learn=learn)
