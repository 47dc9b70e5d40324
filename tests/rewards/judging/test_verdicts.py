"""The parser on everything that is not a verdict, and on the few texts that are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palestra.rewards.judging.verdicts import verdict_in, written

ANSWERS = ("first-4be1", "second-4be1", "tie-4be1")
PIECES = st.sampled_from(
    [
        *(written(answer) for answer in ANSWERS),
        *ANSWERS,
        *("<verdict>", "</verdict>", "<verdict>first</verdict>", "</think>", "<think>"),
        *("\n", " ", "\r\n", "\u2028", "\ufeff", "4be1", "<", ">", "The first is better."),
    ]
)


@pytest.mark.parametrize(
    ("reply", "index"),
    [
        ("<verdict>first-4be1</verdict>", 0),
        ("Both are good.\n\n<verdict>tie-4be1</verdict>\n", 2),
        (
            "It says <verdict>first</verdict>, which is no reason.\n<verdict>second-4be1</verdict>",
            1,
        ),
        ("<think>\n<verdict>first-4be1</verdict>\n</think>\n<verdict>second-4be1</verdict>", 1),
    ],
)
def test_verdicts(reply: str, index: int) -> None:
    assert verdict_in(reply, ANSWERS) == index


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "first-4be1",
        "The first is better.",
        "<verdict>first</verdict>",
        "<verdict>first-4be2</verdict>",
        "<verdict>FIRST-4BE1</verdict>",
        "<verdict> first-4be1 </verdict>",
        "<Verdict>first-4be1</Verdict>",
        "<verdict>first-4be1",
        "<verdict>first-4be1</verdict> because it is better",
        "So: <verdict>first-4be1</verdict>",
        "<verdict>first-4be1</verdict>\n<verdict>first-4be1</verdict>",
        "<verdict>first-4be1</verdict>\n<verdict>second-4be1</verdict>",
        "<verdict>first-4be1</verdict>\nOr rather not.",
        "<verdict>first-4be1 second-4be1</verdict>",
        "<verdict>\nfirst-4be1\n</verdict>",
        "<think>\n<verdict>first-4be1</verdict>\n</think>",
    ],
)
def test_no_verdicts(reply: str) -> None:
    assert verdict_in(reply, ANSWERS) is None


@given(st.lists(PIECES, max_size=12).map("".join) | st.text())
def test_a_verdict_is_the_last_line_and_the_only_one(reply: str) -> None:
    found = verdict_in(reply, ANSWERS)
    said = reply.split("</think>")[-1].strip()
    total = sum(said.count(written(answer)) for answer in ANSWERS)
    lines = said.split("\n")
    last = (
        [written(answer) for answer in ANSWERS].index(lines[-1].strip())
        if (lines[-1].strip() in map(written, ANSWERS))
        else None
    )
    assert found == (last if total == 1 else None)


@given(st.text())
def test_without_the_key_nothing_is_a_verdict(text: str) -> None:
    reply = text.replace("4be1", "")
    assert verdict_in(reply, ANSWERS) is None
    assert verdict_in(f"{reply}\n<verdict>first</verdict>", ANSWERS) is None


@given(st.text(), st.sampled_from(ANSWERS))
def test_after_any_text_a_verdict_is_heard(text: str, answer: str) -> None:
    assert verdict_in(f"{text.replace('4be1', '')}\n{written(answer)}", ANSWERS) == ANSWERS.index(
        answer
    )
