"""Tool-call formats: what is rendered parses back, and nothing else parses."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palestra.policies.tokenizer import HFTokenizer
from palestra.rl.errors import UserError
from palestra.rl.types import Message, ToolCall
from palestra.rollout.dialects import DIALECTS, Dialect, Inexpressible, Malformed
from palestra.rollout.quoting import Quote, ids_of

HERMES, QWEN = DIALECTS["hermes"], DIALECTS["qwen3_coder"]
both = pytest.mark.parametrize("dialect", [HERMES, QWEN], ids=["hermes", "qwen3_coder"])

SPECIAL = ("<tool_call>", "</tool_call>", "<|im_end|>", "<|im_start|>", "<|endoftext|>")
names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,20}", fullmatch=True)
plain = st.text(st.characters(exclude_categories=["Cs"]), max_size=40).filter(
    lambda text: not any(marker in text for marker in SPECIAL)
)
values = plain.filter(lambda text: "\n</parameter>" not in text)
calls = st.builds(ToolCall, name=names, arguments=st.dictionaries(names, values, max_size=3))
nested = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain, inner, max_size=3),
    max_leaves=5,
)
json_calls = st.builds(ToolCall, name=plain, arguments=st.dictionaries(plain, nested, max_size=3))
many = settings(max_examples=60)


def reply(text: str, tokenizer: HFTokenizer) -> list[int]:
    return [*tokenizer.encode(text), tokenizer.eos_id]


def rendered(dialect: Dialect, content: str, *what: ToolCall) -> str:
    return content + "".join(map(dialect.render, what))


@both
@given(content=plain, what=st.lists(calls, max_size=3))
@many
def test_what_is_rendered_parses_back(
    dialect: Dialect, tokenizer: HFTokenizer, content: str, what: list[ToolCall]
) -> None:
    ids = reply(rendered(dialect, content, *what), tokenizer)
    expected = Message(role="assistant", content=content.strip(), calls=tuple(what))
    assert dialect.parse(ids, tokenizer) == expected


@given(call=json_calls)
@many
def test_hermes_keeps_every_json_value(tokenizer: HFTokenizer, call: ToolCall) -> None:
    assert HERMES.parse(reply(HERMES.render(call), tokenizer), tokenizer).calls == (call,)


END = "\n</parameter>\n"
marks = st.sampled_from(
    [*SPECIAL, END, "\n</parameter>", "</parameter>\n", "<parameter=a>\n", "</function>\n", "\n"]
)
some = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
hostile = st.lists(marks | some, max_size=5).map("".join)


@both
@given(content=hostile, value=hostile, other=hostile)
@settings(max_examples=300)
def test_whatever_is_written_parses_back(
    dialect: Dialect, tokenizer: HFTokenizer, content: str, value: str, other: str
) -> None:
    call = ToolCall(name="f", arguments={"a": value, "b": other})
    ambiguous = any((v + END).index(END) < len(v) for v in (value, other))
    if dialect is QWEN and ambiguous:
        with pytest.raises(Inexpressible, match="f: "):
            dialect.markup(call)
        return
    ids = ids_of([Quote(content), *dialect.markup(call)], tokenizer)
    expected = Message(role="assistant", content=content.strip(), calls=(call,))
    assert dialect.parse([*ids, tokenizer.eos_id], tokenizer) == expected


@both
@given(value=hostile)
@settings(max_examples=200)
def test_a_text_parses_back_or_there_is_none(
    dialect: Dialect, tokenizer: HFTokenizer, value: str
) -> None:
    call = ToolCall(name="f", arguments={"a": value})
    try:
        text = dialect.render(call)
    except Inexpressible:
        assert dialect is QWEN and ("tool_call>" in value or END in value + "\n")
    else:
        assert dialect.parse(reply(text, tokenizer), tokenizer).calls == (call,)


@pytest.mark.parametrize(
    "value", [f"x{END}", f"x{END}y", f"x{END}<parameter=b>\ny", "x\n</parameter>"]
)
def test_the_end_of_a_parameter_cannot_stand_inside_of_one(value: str) -> None:
    with pytest.raises(Inexpressible, match="f: "):
        QWEN.markup(ToolCall(name="f", arguments={"a": value}))


@pytest.mark.parametrize("value", ["</parameter>", "</parameter>\nx", "x</parameter>\n", "\n"])
def test_what_only_looks_like_the_end_of_a_parameter_can(
    tokenizer: HFTokenizer, value: str
) -> None:
    call = ToolCall(name="f", arguments={"a": value})
    assert QWEN.parse(reply(QWEN.render(call), tokenizer), tokenizer).calls == (call,)


@pytest.mark.parametrize(
    "call",
    [
        ToolCall(name="a b", arguments={}),
        ToolCall(name="f>\n<|im_end|>", arguments={}),
        ToolCall(name="f", arguments={"a b": "1"}),
        ToolCall(name="f", arguments={"a": "half a pair \ud800"}),
    ],
)
def test_qwen3_coder_writes_nothing_that_it_would_not_read(call: ToolCall) -> None:
    with pytest.raises(Inexpressible):
        QWEN.markup(call)


@both
@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a set"}, b"bytes"])
def test_what_is_not_json_is_not_written(dialect: Dialect, value: object) -> None:
    with pytest.raises(Inexpressible, match="f: "):
        dialect.markup(ToolCall(name="f", arguments={"a": value}))


def test_hermes_writes_nothing_that_it_would_not_read() -> None:
    with pytest.raises(Inexpressible, match="f: "):
        HERMES.markup(ToolCall(name="f", arguments={"a": {1: "a number as key"}}))


def test_hermes_escapes_its_markers_and_nothing_else() -> None:
    text = HERMES.render(ToolCall(name="f", arguments={"a": "<b></tool_call>"}))
    assert text == (
        '<tool_call>\n{"name": "f", "arguments": {"a": "<b>\\u003c/tool_call>"}}\n</tool_call>'
    )


@both
def test_code_survives_byte_for_byte(dialect: Dialect, tokenizer: HFTokenizer) -> None:
    code = "def f(x):\n\treturn \"<parameter=x>\" + '\\n' if x else None  # é\U0001f600\r\n"
    call = ToolCall(name="write", arguments={"text": code})
    assert dialect.parse(reply(dialect.render(call), tokenizer), tokenizer).calls == (call,)


@both
def test_the_end_of_turn_is_optional_and_not_content(
    dialect: Dialect, tokenizer: HFTokenizer
) -> None:
    ids = tokenizer.encode(" hello ")
    expected = Message(role="assistant", content="hello")
    assert dialect.parse(ids, tokenizer) == expected
    assert dialect.parse([*ids, tokenizer.eos_id], tokenizer) == expected
    assert dialect.parse([], tokenizer) == Message(role="assistant", content="")


def call_of(body: str) -> str:
    return f"<tool_call>{body}</tool_call>"


GOOD = {
    "hermes": '\n{"name": "f", "arguments": {"a": "1"}}\n',
    "qwen3_coder": "\n<function=f>\n<parameter=a>\n1\n</parameter>\n</function>\n",
}


@both
@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ("<tool_call>{good}<tool_call>{good}</tool_call></tool_call>", "inside a tool call"),
        ("<tool_call><tool_call>{good}</tool_call>", "inside a tool call"),
        ("<tool_call>{good}", "never closed"),
        ("<tool_call>{good}</tool_call><tool_call>", "never closed"),
        ("{good}</tool_call>", "never opened"),
        ("<tool_call>{good}</tool_call></tool_call>", "never opened"),
        ("<tool_call></tool_call>", None),
        ("<tool_call>{good}trailing</tool_call>", None),
        ("<tool_call>leading{good}</tool_call>", None),
        ("<tool_call>{good}{good}</tool_call>", None),
    ],
)
def test_markers_must_pair_around_one_call(
    dialect: Dialect, tokenizer: HFTokenizer, shape: str, says: str | None
) -> None:
    good = GOOD["hermes" if dialect is HERMES else "qwen3_coder"]
    assert dialect.parse(reply(call_of(good), tokenizer), tokenizer).calls
    with pytest.raises(Malformed, match=says):
        dialect.parse(reply(shape.replace("{good}", good), tokenizer), tokenizer)


@pytest.mark.parametrize(
    "body",
    [
        "{'name': 'f', 'arguments': {}}",
        '{"name": "f", "arguments": {}',
        '{"name": "f", "arguments": {},}',
        '{"name": "f"}',
        '{"name": "f", "arguments": {}, "id": 1}',
        '{"name": "f", "arguments": []}',
        '{"name": "f", "arguments": "{}"}',
        '{"name": 1, "arguments": {}}',
        '[{"name": "f", "arguments": {}}]',
        '{"name": "f", "name": "g", "arguments": {}}',
        '{"name": "f", "arguments": {"a": 1, "a": 2}}',
        '{"name": "f", "arguments": {"a": {"b": 1, "b": 1}}}',
        '{"name": "f", "arguments": {"a": NaN}}',
        '{"name": "f", "arguments": {"a": -Infinity}}',
        '{"name": "f", "arguments": {}} and more',
        '{"name": "f", "arguments": {"a": ' + "9" * 5000 + "}}",
        '{"name": "f", "arguments": {"a": ' + "[" * 100_000 + "}}",
        "null",
    ],
)
def test_hermes_is_strict(body: str) -> None:
    with pytest.raises(Malformed):
        HERMES.parse_body(body)


@pytest.mark.parametrize(
    "body",
    [
        "<function=f>\n</function>",
        "\n<function=f>\n</function>",
        "\n<function=f></function>\n",
        "\n<function=>\n</function>\n",
        "\n<function=a b>\n</function>\n",
        "\n<function=f>\nloose text\n</function>\n",
        "\n<function=f>\n<parameter=a>\n1\n</function>\n",
        "\n<function=f>\n<parameter=a>\n1</parameter>\n</function>\n",
        "\n<function=f>\n<parameter=a>1\n</parameter>\n</function>\n",
        "\n<function=f>\n<parameter=a>\n1\n</parameter>\n<parameter=a>\n2\n</parameter>\n</function>\n",
        "\n<function=f>\n<parameter=a>\n1\n</parameter>\nmore\n</function>\n",
        "\n<function=f>\n</function>\nmore\n",
        '{"name": "f", "arguments": {}}',
    ],
)
def test_qwen3_coder_is_strict(body: str) -> None:
    with pytest.raises(Malformed):
        QWEN.parse_body(body)


def test_a_repeated_parameter_is_named() -> None:
    parameter = "<parameter=a>\n1\n</parameter>\n"
    with pytest.raises(Malformed, match="parameter a was given twice"):
        QWEN.parse_body(f"\n<function=f>\n{parameter}{parameter}</function>\n")


@both
@given(data=st.data())
@settings(max_examples=150)
def test_random_ids_give_a_message_or_malformed(
    dialect: Dialect, tokenizer: HFTokenizer, data: st.DataObject
) -> None:
    markers = [tokenizer.token_id(m) for m in (dialect.open_marker, dialect.close_marker)]
    skeletons = range(tokenizer.vocab_size - 12, tokenizer.vocab_size)  # headers and call tokens
    token = st.sampled_from([*markers, *skeletons]) | st.integers(0, tokenizer.vocab_size - 1)
    ids = data.draw(st.lists(token, max_size=30))
    try:
        message = dialect.parse(ids, tokenizer)
    except Malformed as error:
        assert str(error)
    else:
        assert message.role == "assistant"
        assert len(message.calls) == ids.count(markers[0]) == ids.count(markers[1])


@both
def test_markers_that_are_only_spelled_are_content(
    dialect: Dialect, tokenizer: HFTokenizer
) -> None:
    good = call_of(GOOD["hermes" if dialect is HERMES else "qwen3_coder"])
    ids = [token for letter in good for token in tokenizer.encode(letter)]
    assert tokenizer.token_id("<tool_call>") not in ids
    assert tokenizer.decode(ids) == good
    assert dialect.parse(ids, tokenizer) == Message(role="assistant", content=good)


class Without:
    """The tokenizer less one token."""

    def __init__(self, tokenizer: HFTokenizer, missing: str) -> None:
        self.tokenizer = tokenizer
        self.missing = missing

    def __getattr__(self, name: str) -> object:
        return getattr(self.tokenizer, name)

    def token_id(self, token: str) -> int | None:
        return None if token == self.missing else self.tokenizer.token_id(token)


@both
@pytest.mark.parametrize("missing", ["<tool_call>", "</tool_call>"])
def test_a_tokenizer_without_the_markers_is_refused(
    dialect: Dialect, tokenizer: HFTokenizer, missing: str
) -> None:
    dialect.check(tokenizer)
    with pytest.raises(UserError, match=f"{missing}: choose another rollout.dialect"):
        dialect.check(Without(tokenizer, missing))  # type: ignore[arg-type]


@both
def test_markers_that_any_text_can_spell_are_refused(
    dialect: Dialect, tokenizer: HFTokenizer
) -> None:
    class Spelled(Without):
        def split(self, text: str) -> list[str | int]:
            return [text]

    with pytest.raises(UserError, match="has no token <tool_call>"):
        dialect.check(Spelled(tokenizer, "nothing"))  # type: ignore[arg-type]
