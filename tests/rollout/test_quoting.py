"""Markup to ids: control tokens come from our own text alone."""

from __future__ import annotations

import pytest

from palestra.policies.tokenizer import HFTokenizer
from palestra.rollout.quoting import Markup, Quote, ids_of, text_of


@pytest.mark.parametrize(
    ("markup", "controls"),
    [
        (["<|im_end|>"], 1),
        ([Quote("<|im_end|>")], 0),
        (["<|im_", Quote("end|>")], 0),
        ([Quote("<|im_"), "end|>"], 0),
        (["<|im_", Quote(""), "end|>"], 0),
        (["<|im_", "end|>"], 1),
        (["<tool_call>", Quote("</tool_call>"), "</tool_call>"], 2),
        ([Quote("<tool"), Quote("_call>")], 0),
        ([Quote("")], 0),
        ([], 0),
    ],
)
def test_a_marker_counts_when_it_stands_in_our_own_text(
    tokenizer: HFTokenizer, markup: Markup, controls: int
) -> None:
    ids = ids_of(markup, tokenizer)
    added = set(tokenizer._hf.get_added_vocab().values())
    assert sum(i in added for i in ids) == controls
    assert tokenizer.decode(ids) == text_of(markup)


def test_a_quote_merges_with_our_text_as_the_whole_text_does(other: HFTokenizer) -> None:
    markup = ["<|im_start|>user\n", Quote("\nf(x)"), "\n</tool_response><|im_end|>"]
    assert ids_of(markup, other) == other.encode(text_of(markup))
    apart = [i for part in markup for i in other.encode(text_of([part]))]
    assert ids_of(markup, other) != apart, "this tokenizer does merge across the quote's ends"
