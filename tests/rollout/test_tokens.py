"""Conversations as ids: appended ids spell exactly what the chat template would."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palestra.policies.tokenizer import HFTokenizer
from palestra.rl.errors import UserError
from palestra.rl.types import Demonstration, DemoStep, Message, Tool, ToolCall
from palestra.rollout.dialects import DIALECTS
from palestra.rollout.tokens import Chat, supervised

QWEN = DIALECTS["qwen3_coder"]
PROMPT = (Message(role="system", content="Be brief."), Message(role="user", content="Fix it."))
plain = st.text(st.characters(exclude_categories=["Cs"]), max_size=30).filter(
    lambda text: "<|" not in text and "tool_call>" not in text and "\n</parameter>" not in text
)
steps = st.lists(
    st.builds(
        DemoStep,
        message=st.builds(
            lambda content, text: Message(
                role="assistant",
                content=content,
                calls=(ToolCall(name="write", arguments={"text": text}),),
            ),
            plain,
            plain,
        ),
        observation=plain,
        learn=st.booleans(),
    ),
    min_size=1,
    max_size=3,
)


@pytest.fixture(scope="session")
def chat(tokenizer: HFTokenizer) -> Chat:
    return Chat(tokenizer, QWEN)


def written(step: DemoStep) -> str:
    return step.message.content + "".join(map(QWEN.render, step.message.calls))


@given(taken=steps)
@settings(max_examples=40)
def test_appended_ids_spell_the_template_of_the_whole_conversation(
    chat: Chat, tokenizer: HFTokenizer, taken: list[DemoStep]
) -> None:
    ids = chat.prompt(PROMPT, ())
    messages = list(PROMPT)
    assert tokenizer.decode(ids) == tokenizer.render(messages, (), reply=True)
    for step in taken:
        ids += [*tokenizer.encode(written(step)), tokenizer.eos_id]
        ids += chat.observation([step.observation])
        messages += [step.message, Message(role="tool", content=step.observation)]
        assert tokenizer.decode(ids) == tokenizer.render(messages, (), reply=True)


def test_several_tool_answers_are_several_messages(chat: Chat, tokenizer: HFTokenizer) -> None:
    expected = "\n<|im_start|>tool\na<|im_end|>\n<|im_start|>tool\nb<|im_end|>\n"
    expected += "<|im_start|>assistant\n"
    assert tokenizer.decode(chat.observation(["a", "b"])) == expected


def test_an_answer_that_repeats_our_own_words_is_harmless(
    chat: Chat, tokenizer: HFTokenizer
) -> None:
    for text in ("palestra-sentinel-reply", "palestra-sentinel-ask"):
        found = tokenizer.decode(chat.observation([text]))
        assert found == f"\n<|im_start|>tool\n{text}<|im_end|>\n<|im_start|>assistant\n"


def test_a_returned_list_is_the_callers_own(chat: Chat) -> None:
    first = chat.observation(["x"])
    first.clear()
    assert chat.observation(["x"])


@given(taken=steps)
@settings(max_examples=40)
def test_demonstrations_teach_what_the_assistant_wrote_and_nothing_else(
    chat: Chat, tokenizer: HFTokenizer, taken: list[DemoStep]
) -> None:
    demo = Demonstration(task_id="t", prompt=PROMPT, steps=tuple(taken))
    sample = chat.demonstration(demo, ())
    ids, weights = list(sample.token_ids), list(sample.ptx)

    def take(expected: Sequence[int], weight: float) -> None:
        size = len(expected)
        assert ids[:size] == list(expected)
        assert weights[:size] == [weight] * size
        del ids[:size], weights[:size]

    take(chat.prompt(PROMPT, ()), 0.0)
    for number, step in enumerate(taken):
        take([*tokenizer.encode(written(step)), tokenizer.eos_id], float(step.learn))
        if number + 1 < len(taken):
            take(chat.observation([step.observation]), 0.0)
    assert ids == weights == []
    assert not any(sample.loss_mask) and not any(sample.advantages) and not any(sample.logprobs)


def test_the_prompt_shows_the_tools_to_a_template_that_wants_them(tokenizer: HFTokenizer) -> None:
    shown: list[Sequence[Tool]] = []

    class Spy(Relay):
        def render(self, messages: Sequence[Message], tools: Sequence[Tool], *, reply: bool) -> str:
            shown.append(tools)
            return self.tokenizer.render(messages, tools, reply=reply)

    offered = (Tool(name="submit", description="Finish.", parameters={"type": "object"}),)
    Chat(Spy(tokenizer), QWEN).prompt(PROMPT, offered)  # type: ignore[arg-type]
    assert shown == [offered]


class Relay:
    """The tokenizer, with something about it changed by a subclass."""

    def __init__(self, tokenizer: HFTokenizer) -> None:
        self.tokenizer = tokenizer

    def __getattr__(self, name: str) -> object:
        return getattr(self.tokenizer, name)


class NoMarkers(Relay):
    def token_id(self, token: str) -> int | None:
        return None


class OtherEnd(Relay):
    @property
    def eos_id(self) -> int:
        found = self.tokenizer.token_id("<|endoftext|>")
        assert found is not None
        return found


def test_a_tokenizer_that_cannot_work_is_refused(tokenizer: HFTokenizer) -> None:
    with pytest.raises(UserError, match="has no token <tool_call>"):
        Chat(NoMarkers(tokenizer), QWEN)  # type: ignore[arg-type]
    odd = Chat(OtherEnd(tokenizer), QWEN)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"does not end a reply with '<\|endoftext\|>'"):
        odd.observation(["x"])


def test_supervised_samples_have_no_policy_gradient() -> None:
    sample = supervised([1, 2, 3], [0.0, 1.0, 1.0])
    assert (sample.token_ids, sample.ptx) == ((1, 2, 3), (0.0, 1.0, 1.0))
    assert sample.loss_mask == (False,) * 3
    assert sample.advantages == sample.logprobs == (0.0,) * 3
