"""Rewards that come with palestra, beside those that read the verdict: values by hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palestra.envs.diff import MAX_DIFF, diff_of
from palestra.rewards.bind import bound
from palestra.rewards.registry import REWARDS
from palestra.rewards.unified import files_of, texts_after
from palestra.rl.errors import Abstain, GraderError
from palestra.rl.types import AnswerCheck, File, Patch, Stop, Task, Trajectory, Tree, Work

MakeTrajectory = Callable[..., Trajectory]

CLEAN = "def f(x):\n    return x + 1\n"
MESSY = "import os\nimport sys\n\n\ndef f(x):\n    if x == None:\n        pass\n    return x+1\n"

texts = st.text(alphabet="ab+- @\\\n\r\x0c", max_size=40)
paths = st.sampled_from(["a.py", "b c.py", "d/é.py", 'q"\t.py'])
trees = st.dictionaries(paths, texts, max_size=4)


def task_with(files: Mapping[str, str], *, tree: bool = False, checks: Any = ()) -> Task:
    held = {path: File(data=text.encode()) for path, text in files.items()}
    return Task(
        id="task-g",
        source="test",
        kind="test",
        prompt="?",
        files={} if tree else files,
        reference={},
        artifacts=() if tree else (*files, "answer.txt"),
        hidden=tuple(checks),
        tree=Tree(files=held) if tree else None,
    )


def value(name: str, played: Trajectory, task: Task | None = None, **options: Any) -> float:
    given: dict[str, object] = {"task_of": {"task-g": task}.__getitem__} if task else {}
    reward: Any = bound(name, REWARDS.find(name), options, given)

    async def run() -> float:
        found = await reward(played, None)
        return float(found)

    return asyncio.run(run())


@given(before=trees, after=trees, tree=st.booleans())
def test_a_diff_tells_every_text_that_the_agent_left(
    before: dict[str, str], after: dict[str, str], tree: bool
) -> None:
    task = task_with(before, tree=tree)
    work: Work = {path: text.encode() for path, text in after.items()}
    if tree:
        new = {path: File(data=text.encode()) for path, text in after.items()}
        files = new | {path: None for path in before if path not in after}
        work = Patch(
            files={p: f for p, f in files.items() if f is None or before.get(p) != after[p]}
        )
    else:
        work = {path: text.encode() for path, text in after.items() if path in before}
        after = {path: text for path, text in after.items() if path in before}
    diff = diff_of(task, work)
    assert texts_after(task, diff) == {p: t for p, t in after.items() if before.get(p) != t}
    assert {f.path for f in files_of(diff) if f.deleted} == before.keys() - after.keys()


def test_a_diff_that_is_cut_off_or_refused_tells_nothing(make_trajectory: MakeTrajectory) -> None:
    long = diff_of(task_with({"a.py": ""}), {"a.py": b"x = 1\n" * MAX_DIFF})
    refused = diff_of(task_with({}, tree=True), Patch(files={}, refused="too large"))
    for diff in (long, refused, "no diff\n", long[:200]):
        with pytest.raises(ValueError):
            files_of(diff)
        with pytest.raises(Abstain):
            value("diff_size", replace(make_trajectory(), patch=diff))
    assert value("patch_applies", replace(make_trajectory(), patch=refused)) == 0.0
    assert value("patch_applies", replace(make_trajectory(), patch=long)) == 1.0
    assert value("patch_applies", make_trajectory()) == 0.0


def test_size_budget_and_form(make_trajectory: MakeTrajectory) -> None:
    task = task_with({"a.py": "x = 1\ny = 2\n", "b.py": "z\n"})
    patch = diff_of(task, {"a.py": b"x = 1\ny = 3\n", "b.py": b"z\nw\n"})
    played = replace(make_trajectory(), patch=patch)
    assert value("diff_size", played) == 1.0 and value("diff_size", played, most=2) == 2 / 3
    with pytest.raises(Abstain, match="nothing was changed"):
        value("diff_size", make_trajectory())
    binary = replace(played, patch=diff_of(task, {"a.py": b"\0", "b.py": b"z\n"}))
    with pytest.raises(Abstain, match="a binary file"):
        value("diff_size", binary)
    assert value("within_budget", played) == value("within_budget", played, tokens=3) == 1.0
    assert value("within_budget", played, tokens=2) == 0.0
    assert value("within_budget", replace(played, stop=Stop.OVER_BUDGET)) == 0.0


def test_length_is_a_reward_of_siblings(make_trajectory: MakeTrajectory) -> None:
    short = make_trajectory("a")
    long = make_trajectory("b", turns=short.turns * 3)
    wrong = make_trajectory("c", reward=0.0)
    length: Any = REWARDS.find("length")
    found = asyncio.run(length([short, long, wrong]))
    assert [r.total for r in found] == [0.5, -0.5, 0.0]


def test_style_is_what_the_change_added(make_trajectory: MakeTrajectory) -> None:
    def styled(before: str, after: str, path: str = "a.py", **options: Any) -> float:
        task = task_with({path: before})
        patch = diff_of(task, {path: after.encode()})
        return value("style", replace(make_trajectory(), patch=patch), task, **options)

    silenced = "# ruff: noqa\n" + MESSY.replace("sys", "sys  # noqa")
    assert styled(CLEAN, CLEAN + "\n\ny = f(2)\n") == 1.0
    assert styled(MESSY, CLEAN) == 1.0, "to clean up costs nothing, and gains nothing"
    assert styled(MESSY, MESSY + "y = 1\n", rules="F") == 1.0, "what was there is not counted"
    assert styled(CLEAN, MESSY, rules="F") == 1 / 3
    assert styled(CLEAN, silenced, rules="F") == 1 / 3
    assert styled(CLEAN, MESSY) < 1 / 3
    assert styled(MESSY, "def f(:\n") == 0.0, "one error hides all findings that there were"
    with pytest.raises(Abstain, match="could not be parsed before"):
        styled("print 1\n", MESSY)
    for path, after in (("a.py", CLEAN), ("a.txt", "x")):
        with pytest.raises(Abstain, match="no Python file"):
            styled(CLEAN, after, path)
    task = task_with({"a.py": "print 1\n", "b.py": CLEAN})
    patch = diff_of(task, {"a.py": b"print 2\n", "b.py": MESSY.encode()})
    played = replace(make_trajectory(), patch=patch)
    assert value("style", played, task, rules="F") == 1 / 3, "of what could be parsed before"
    with pytest.raises(GraderError, match="ruff: "):
        styled(CLEAN, MESSY, rules="NONE1")


def test_answers_by_any_verifier_and_in_part(make_trajectory: MakeTrajectory) -> None:
    def answered(name: str, answer: str, expected: str, verifier: str = "exact") -> float:
        check = AnswerCheck(id="one", verifier=verifier, expected=expected)
        task = task_with({}, checks=[check])
        patch = diff_of(task, {"answer.txt": answer.encode()})
        return value(name, replace(make_trajectory(), patch=patch), task)

    assert answered("exact", "New  York", "new york") == 1.0
    assert answered("exact", "Boston", "new york") == answered("exact", "", "x") == 0.0
    assert answered("numeric", "1,200", "1.2e3") == 1.0 and answered("exact", "2.0", "2") == 0.0
    assert answered("numeric", "\0", "1") == 0.0
    assert answered("symbolic", "2(x+1)", "2x + 2") == 1.0
    assert answered("symbolic", "2x + 1", "2x + 2") == 0.0
    rules = json.dumps([["words", {"most": 3}], ["lower", {}]])
    claims = "I have followed ALL the requirements of it"
    for text, share in (("one two", 1.0), ("One two", 0.5), ("One two is four", 0.0)):
        assert answered("constraints", text, rules, "constraints") == share
    lower = claims.lower()
    assert answered("constraints", lower, rules, "constraints") == 0.0, "it claims, and does not"
    for name in ("exact", "constraints"):
        with pytest.raises(Abstain, match="expects no"):
            value(name, make_trajectory(), task_with({}))
    with pytest.raises(Abstain):
        answered("constraints", "x", "x")
