"""The tokenizer of a model folder, and what is said when a folder cannot serve."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palestra.envs.arguments import tool
from palestra.policies.config import TinyConfig
from palestra.policies.tiny import build
from palestra.policies.tokenizer import HFTokenizer
from palestra.rl.errors import UserError
from palestra.rl.types import Message


@pytest.fixture(scope="module")
def tokenizer(tiny: Path) -> HFTokenizer:
    return HFTokenizer(tiny)


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
@settings(max_examples=60)
def test_text_survives_byte_for_byte(tokenizer: HFTokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert all(0 <= i < tokenizer.vocab_size for i in ids)
    assert tokenizer.decode(ids) == text


def test_special_tokens_are_single_ids_and_stay_in_the_text(tokenizer: HFTokenizer) -> None:
    for token in ("<|im_end|>", "<tool_call>", "</tool_call>", "<|im_start|>assistant\n"):
        found = tokenizer.token_id(token)
        assert found is not None
        assert tokenizer.encode(token) == [found]
        assert tokenizer.decode([found]) == token
    assert tokenizer.token_id("<|im_end|>") == tokenizer.eos_id
    assert tokenizer.token_id("no such token") is None


def test_the_vocabulary_is_the_models(tiny: Path, tokenizer: HFTokenizer) -> None:
    assert tokenizer.vocab_size <= json.loads((tiny / "config.json").read_text())["vocab_size"]


def test_a_prompt_ends_where_a_reply_begins(tokenizer: HFTokenizer) -> None:
    messages = [Message(role="user", content=" a\n")]
    closed = "<|im_start|>user\n a\n<|im_end|>\n"
    assert tokenizer.render(messages, (), reply=False) == closed
    assert tokenizer.render(messages, (), reply=True) == closed + "<|im_start|>assistant\n"


def test_a_call_costs_few_tokens(tmp_path: Path) -> None:
    shape = TinyConfig(
        vocab_size=400,
        hidden_size=8,
        intermediate_size=8,
        layers=1,
        heads=1,
        kv_heads=1,
        head_dim=8,
    )
    build(tmp_path, shape, ["x"], [tool("put", "Put.", a="string: x", b="string: y")], seed=0)
    tokenizer = HFTokenizer(tmp_path)
    text = (
        "<tool_call>\n<function=put>\n<parameter=a>\n1\n</parameter>\n<parameter=b>\n2\n"
        "</parameter>\n</function>\n</tool_call>"
    )
    assert len(tokenizer.encode(text)) == 7
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_folder_without_a_tokenizer(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=f"{name} has no tokenizer"):
        HFTokenizer(tmp_path / name)


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    for file in tiny.iterdir():
        if file.suffix != ".safetensors":
            shutil.copy(file, tmp_path)
    return tmp_path


def test_a_tokenizer_without_an_end(copy: Path) -> None:
    config = json.loads((copy / "tokenizer_config.json").read_text())
    config["eos_token"] = None
    (copy / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="names no eos_token"):
        HFTokenizer(copy)


def test_a_tokenizer_without_a_chat_template(copy: Path) -> None:
    (copy / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match="no chat template"):
        HFTokenizer(copy)


def test_building_twice_gives_the_same_policy(tiny: Path, tmp_path: Path) -> None:
    shape = TinyConfig(
        vocab_size=400,
        hidden_size=32,
        intermediate_size=64,
        layers=2,
        heads=2,
        kv_heads=1,
        head_dim=16,
        max_position_embeddings=256,
    )
    build(tmp_path, shape, ["def add(a, b):\n    return a + b\n"], [], seed=0)
    for name in ("model.safetensors", "tokenizer.json"):
        assert (tmp_path / name).read_bytes() == (tiny / name).read_bytes()
    build(tmp_path, shape, ["def add(a, b):\n    return a + b\n"], [], seed=1)
    assert (tmp_path / "model.safetensors").read_bytes() != (
        tiny / "model.safetensors"
    ).read_bytes()
