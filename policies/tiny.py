"""The embedded policy: a few million random weights and a tokenizer trained on the spot.

It is saved as an ordinary Hugging Face folder, so everything downstream treats it like any other
model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from palestra.policies.config import TinyConfig
from palestra.policies.tiny_shapes import shape_of
from palestra.rl.types import Tool

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for call in m.tool_calls or [] %}<tool_call>\n<function={{ call.function.name }}>\n"
    "{% for key, value in call.function.arguments.items() %}"
    "<parameter={{ key }}>\n{{ value }}\n</parameter>\n{% endfor %}</function>\n</tool_call>"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TURNS = [f"<|im_start|>{role}\n" for role in ("system", "user", "assistant", "tool")]
"""Whole turn headers as single tokens: a turn of this policy is short, its header should be too."""


def build(
    folder: Path, config: TinyConfig, texts: Sequence[str], tools: Iterable[Tool], seed: int
) -> None:
    """Write tokenizer and weights to ``folder``. ``texts`` trains the tokenizer; the skeleton of
    every call to ``tools`` becomes a token, so that a call costs few of them."""
    import torch
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
    from transformers.utils import logging

    raw = _train_tokenizer(config.vocab_size, texts, [*TURNS, *_call_tokens(tools)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    shape = shape_of(
        config,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(shape).float()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    logging.disable_progress_bar()
    model.save_pretrained(folder)


def _call_tokens(tools: Iterable[Tool]) -> list[str]:
    """The fixed text around the arguments of each call, in the qwen3_coder dialect."""
    tokens = ["<tool_call>", "</tool_call>"]
    for tool in tools:
        properties = tool.parameters.get("properties")
        required = tool.parameters.get("required")
        names = [n for n in required if n in properties] if _named(properties, required) else []  # type: ignore[attr-defined,operator]
        skeleton = f"\n<function={tool.name}>\n"
        for name in names:
            skeleton += f"<parameter={name}>\n"
            tokens.append(skeleton)
            skeleton = "\n</parameter>\n"
        tokens.append(skeleton + "</function>\n")
    return list(dict.fromkeys(tokens))


def _named(properties: object, required: object) -> bool:
    return isinstance(properties, dict) and isinstance(required, list)


def _train_tokenizer(vocab_size: int, texts: Sequence[str], calls: Sequence[str]):  # type: ignore[no-untyped-def]
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    # Digits one by one (line numbers), runs of spaces apart from words (indentation).
    split = Regex(r"\p{N}| ?\p{L}+|\n+| {2,}(?= )| ?[^\s\p{L}\p{N}]+|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(split, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(calls),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=SPECIAL,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(call, normalized=False) for call in calls])
    return tokenizer
