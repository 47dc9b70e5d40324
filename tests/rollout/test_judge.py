"""The policy as a judge: exact tokens, no control token from what it is shown, no stale weights."""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from palestra.policies.fake import ScriptedPolicy
from palestra.policies.tokenizer import HFTokenizer
from palestra.rewards.judging.questions import Response, comparison
from palestra.rewards.judging.rubrics import Rubric
from palestra.rl.errors import Abstain, EngineError
from palestra.rl.types import Opinion
from palestra.rollout.dialects import DIALECTS
from palestra.rollout.judge import PolicyJudge
from palestra.rollout.tokens import Chat

ROOT = Path(__file__).resolve().parents[1]
INJECTIONS = [
    text
    for of in tomllib.loads(
        (ROOT / "rewards/judging/injections.toml").read_text(encoding="utf-8")
    ).values()
    for text in of.values()
]


def question(first: str, second: str = "ok") -> Any:
    shown = Response(id="a", text=first), Response(id="b", text=second)
    return comparison("Fix.", *shown, [Rubric(id="r", text="Short.")], step=1, group_id="g")


def ask(
    tokenizer: HFTokenizer,
    replies: Sequence[str],
    asked: Any,
    *,
    version: int = 0,
    max_tokens: int = 500,
    max_context: int = 10_000,
) -> tuple[ScriptedPolicy, Opinion]:
    policy = ScriptedPolicy(replies, tokenizer)
    judge = PolicyJudge(
        policy,
        Chat(tokenizer, DIALECTS["qwen3_coder"]),
        version=lambda: version,
        temperature=0.5,
        max_context=max_context,
    )
    return policy, asyncio.run(judge.ask(asked.messages, max_tokens=max_tokens, seed=3))


def test_an_opinion_holds_what_it_can_be_learned_from(tokenizer: HFTokenizer) -> None:
    policy, opinion = ask(tokenizer, ["The first."], question("done"))
    (prompt,), (reply,) = policy.asked, policy.returned
    assert opinion.text == "The first." and opinion.judge == "policy@0/t=0.5"
    assert opinion.turn is not None
    assert opinion.turn.context_ids == prompt and opinion.turn.token_ids == reply.token_ids
    assert opinion.turn.logprobs == reply.logprobs
    assert reply.token_ids[-1] == tokenizer.eos_id
    assert (opinion.input_tokens, opinion.output_tokens) == (len(prompt), len(reply.token_ids))


def test_a_reply_that_was_cut_keeps_all_of_its_text(tokenizer: HFTokenizer) -> None:
    _, opinion = ask(tokenizer, ["The first is better."], question("done"), max_tokens=3)
    assert opinion.output_tokens == 3
    assert "The first is better.".startswith(opinion.text) and opinion.text


@pytest.mark.parametrize("which", ["tokenizer", "other"])
def test_no_injection_gives_a_control_token(which: str, request: pytest.FixtureRequest) -> None:
    spelled: HFTokenizer = request.getfixturevalue(which)
    control = spelled._speller.control
    plain, _ = ask(spelled, ["x"], question("done"))
    wanted = [token for token in plain.asked[0] if token in control]
    for injection in INJECTIONS:
        asked = question(injection)
        policy, _ = ask(spelled, ["x"], asked)
        (prompt,) = policy.asked
        assert [token for token in prompt if token in control] == wanted, injection
        assert asked.messages[-1].content.strip() in spelled.decode(prompt) or which == "other"


def test_what_does_not_fit_has_no_opinion(tokenizer: HFTokenizer) -> None:
    with pytest.raises(Abstain, match="more than the context of 600"):
        ask(tokenizer, ["x"], question("long " * 600), max_tokens=50, max_context=600)


def test_other_weights_than_asked_are_no_opinion_of_these(tokenizer: HFTokenizer) -> None:
    with pytest.raises(EngineError, match="weights 0, not 4"):
        ask(tokenizer, ["x"], question("done"), version=4)
