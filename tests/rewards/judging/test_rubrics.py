"""Rubrics come from data files that say what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from palestra.rewards.judging.questions import Response, check, comparison
from palestra.rewards.judging.responses import response_of, task_of
from palestra.rewards.judging.rubrics import read_rubrics, shipped
from palestra.rl.errors import UserError
from palestra.rl.types import Message, ToolCall

Make = Callable[..., Any]
GOOD = 'about = "ours"\n[[rubric]]\nid = "short"\ntext = "It is short."\n'


def test_every_shipped_file_can_be_read_and_a_judge_sees_every_rubric() -> None:
    assert {"core", "prescriptive", "annotated_patch"} <= set(shipped())
    assert all(read_rubrics([name]) for name in shipped())
    rubrics = read_rubrics(["core", "prescriptive", "annotated_patch"])
    asked = comparison(
        "t", Response(id="a", text=""), Response(id="b", text=""), rubrics, step=1, group_id="g"
    )
    assert all(rubric.text in asked.messages[0].content for rubric in rubrics)


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(GOOD)
    (rubric,) = read_rubrics([str(file)])
    assert (rubric.id, rubric.text, rubric.mandatory) == ("short", "It is short.", False)
    with pytest.raises(UserError, match="'short' is there twice"):
        read_rubrics([str(file), str(file)])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("about = 1", "about: "),
        ('about = "ours"', "rubric: Field required"),
        ('about = "ours"\nrubric = []', "rubric: "),
        (GOOD + "weight = 2", r"rubric\.0\.weight: Extra"),
        (GOOD.replace("It is short.", "  "), r"rubric\.0\.text: "),
        (GOOD.replace('"short"', '"Not an id"'), r"rubric\.0\.id: "),
        ("about = ", "cannot be read as rubrics"),
        ("\xff", "cannot be read as rubrics"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=rf"mine\.toml: {reason}") as raised:
        read_rubrics([str(file)])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["nope", "nope.toml", "../config", ""])
def test_a_file_that_is_not_there(name: str) -> None:
    with pytest.raises(UserError):
        read_rubrics([name])


def test_a_judge_is_shown_words_calls_and_patch_but_no_thoughts(
    make_trajectory: Make, make_turn: Make
) -> None:
    turn = make_turn("<think>secret</think>\nI look.", observation="file")
    shown = response_of(make_trajectory("a", turns=(turn,)), 10_000)
    assert shown.id == "a"
    assert shown.text == 'I look.\ncalled replace {"line": "3", "text": "    return x"}'
    assert task_of(make_trajectory(), 10_000) == "user: Fix it."


@pytest.mark.parametrize("size", [199, 200, 201, 5000])
def test_long_responses_show_both_ends(make_trajectory: Make, make_turn: Make, size: int) -> None:
    message = Message(role="assistant", content="ab" * (size // 2) + "c" * (size % 2))
    turn = make_turn()
    shown = response_of(make_trajectory(turns=(replace(turn, message=message),)), 200).text
    text = message.content
    if size <= 200:
        assert shown == text
    else:
        assert shown == f"{text[:100]}\n[{size - 200} characters left out]\n{text[-100:]}"


def test_odd_words_can_be_sent(make_turn: Make, make_trajectory: Make) -> None:
    call = ToolCall(name="run", arguments={"x": object(), "y": "\ud800"})
    message = Message(role="assistant", content="\ud800\x00", calls=(call,))
    odd = make_trajectory(turns=(replace(make_turn(), message=message),))
    asked = check("t", response_of(odd, 1000), read_rubrics(["core"]), step=1, group_id="g")
    assert asked.messages[-1].content.encode()
