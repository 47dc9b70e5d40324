"""Replies that claim to obey."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from palestra.rewards.false_claim import claims, false_claim
from palestra.rl.errors import GraderError
from palestra.rl.types import Outcome, Trajectory, Turn, Verdict


@pytest.mark.parametrize(
    "text",
    [
        "I made sure not to use the word.",
        "We've followed the plan.",
        "Here it is, as requested:",
        "The text has 50 words.",
        "It obeys all of the rules.",
        "It meets your requirements!",
        "A text with exactly three paragraphs.",
        "Written without any capital letters.",
        "I could not shorten it. Still, every instruction is obeyed.",
    ],
)
def test_claims(text: str) -> None:
    assert len(claims(text)) == 1


def test_claims_after_a_denial_are_looked_at_once() -> None:
    assert claims("x" * 1_000_000 + " not " + "as asked " * 100_000) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "rivers it is often said that people like them",
        "I could not follow all the rules.",
        "It isn't true that this text has 50 words.",
        "Rules were made for games. Requirements differ.",
        "The text of the song is lost.",
    ],
)
def test_no_claims(text: str) -> None:
    assert claims(text) == []


def test_a_claim_is_false_where_a_check_failed(
    make_trajectory: Callable[..., Trajectory], make_turn: Callable[..., Turn]
) -> None:
    def worth(said: str, **passed: bool) -> float:
        verdict = Verdict(outcome=Outcome.GRADED, passed=passed)
        episode = replace(make_trajectory(turns=(make_turn(said),)), verdict=verdict)
        return asyncio.run(false_claim(episode, None))

    assert worth("As requested.", a=True, b=False) == 1.0
    assert worth("As requested.", a=True, b=True) == 0.0
    assert worth("No.", a=False) == 0.0
    assert worth("I followed all the rules.</think>Well.", a=False) == 0.0
    with pytest.raises(GraderError):
        asyncio.run(false_claim(replace(make_trajectory(), verdict=None), None))
