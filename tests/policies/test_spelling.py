"""No text spells a control token, and ordinary text keeps its ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from palestra.policies.spelling import Speller
from palestra.policies.tiny import SPECIAL, TURNS
from palestra.policies.tokenizer import HFTokenizer
from palestra.rl.errors import UserError

END = "<|im_end|>"
MARKERS = [*SPECIAL, *TURNS, "<tool_call>", "</tool_call>"]
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
cut = st.builds(lambda m, i: m[:i], st.sampled_from(MARKERS), st.integers(1, 12))
hostile = st.lists(st.sampled_from(MARKERS) | cut | text, max_size=6).map("".join)


@pytest.fixture(scope="module")
def tokenizer(tiny: Path) -> HFTokenizer:
    return HFTokenizer(tiny)


@given(said=hostile)
@settings(max_examples=200)
def test_no_text_spells_a_control_token(tokenizer: HFTokenizer, said: str) -> None:
    ids = tokenizer.spell(said)
    added = set(tokenizer._hf.get_added_vocab().values())
    assert added and added.isdisjoint(ids)
    assert tokenizer.decode(ids) == said


@pytest.mark.parametrize("marker", MARKERS)
def test_every_marker_is_a_control_token_in_our_own_text(
    tokenizer: HFTokenizer, marker: str
) -> None:
    token = tokenizer.token_id(marker)
    assert tokenizer.split(f"a{marker}b") == ["a", token, "b"]
    assert tokenizer.spell(marker) != [token]


@given(ours=hostile)
@settings(max_examples=200)
def test_encoding_is_splitting_and_spelling(tokenizer: HFTokenizer, ours: str) -> None:
    pieces = tokenizer.split(ours)
    ids = [i for p in pieces for i in ([p] if isinstance(p, int) else tokenizer.spell(p))]
    assert ids == tokenizer.encode(ours)
    assert "" not in pieces


@given(said=text.filter(lambda t: not any(marker in t for marker in MARKERS)))
def test_ordinary_text_keeps_its_ids(tokenizer: HFTokenizer, said: str) -> None:
    assert tokenizer.spell(said) == tokenizer.encode(said)


def test_half_a_surrogate_pair_is_a_question_mark(tokenizer: HFTokenizer) -> None:
    assert tokenizer.spell("a\ud800b") == tokenizer.spell("a?b")


def bpe(*texts: str, **options: Any) -> Tokenizer:
    """A byte-level BPE whose merges come from ``texts``, with an end of turn."""
    tokenizer = Tokenizer(models.BPE(**options))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=alphabet, special_tokens=[END], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def speller(tokenizer: Tokenizer) -> Speller:
    return Speller(tokenizer, [], end=tokenizer.token_to_id(END), name="here")


@pytest.mark.parametrize("options", [{}, {"ignore_merges": True}])
def test_a_marker_that_merges_make_is_spelled_in_pieces(options: dict[str, Any]) -> None:
    tokenizer = bpe(*["<call>", f"x{END}"] * 9, **options)
    token = tokenizer.token_to_id("<call>")
    assert token is not None, "the merges make it"
    tokenizer.add_tokens([AddedToken("<call>", special=False)])
    found = speller(tokenizer)
    assert found.control == {tokenizer.token_to_id(END), token}
    for said in ("<call>", "<call><call>", f"<call>{END}"):
        assert found.control.isdisjoint(found.ids(said))
        assert tokenizer.decode(found.ids(said), skip_special_tokens=False) == said


def test_added_white_space_stays_what_it_is() -> None:
    tokenizer = bpe("x")
    tokenizer.add_tokens([AddedToken("\n\n\n"), AddedToken("<call>"), AddedToken("    ")])
    found = speller(tokenizer)
    said = "a\n\n\n\n    b"
    assert tokenizer.token_to_id("    ") in found.ids(said)
    assert found.ids(said) == tokenizer.encode(said).ids
    assert tokenizer.token_to_id("<call>") not in found.ids("<call>")


def test_special_ids_are_control_tokens_although_nobody_added_them() -> None:
    tokenizer = bpe(*["<call>"] * 9)
    special = tokenizer.token_to_id("<call>")
    with pytest.raises(UserError, match="here: ordinary text spells control tokens"):
        Speller(tokenizer, [special], end=tokenizer.token_to_id(END), name="here")


def _words(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({END: 0, "x": 1}, unk_token=END))
    tokenizer.add_special_tokens([END])
    return tokenizer


def _unknown_is_the_end(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE({END: 0, "x": 1}, [], unk_token=END))
    tokenizer.add_special_tokens([END])
    return tokenizer


def _space_at_the_beginning(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(prepend_scheme="first"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return tokenizer


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_words, "only BPE tokenizers are supported, this is WordLevel"),
        (_unknown_is_the_end, "spells control tokens"),
        (_space_at_the_beginning, "depend on where a text begins"),
    ],
)
def test_a_tokenizer_that_cannot_be_copied_is_refused(spoil: Any, says: str) -> None:
    with pytest.raises(UserError, match=f"here: .*{says}"):
        speller(spoil(bpe("x")))
