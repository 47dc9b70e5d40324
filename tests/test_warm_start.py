"""Samples of demonstrations: what the dialect cannot write is named and left out."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from palestra.deploy.config import RunConfig
from palestra.deploy.console import Console
from palestra.deploy.ptx import EPOCHS, ptx_sources
from palestra.deploy.warm_start import demonstrations, ensure_taught
from palestra.envs.complete import Complete
from palestra.envs.repair import Repair
from palestra.policies.config import TinyConfig
from palestra.policies.tiny import build
from palestra.policies.tokenizer import HFTokenizer
from palestra.rl.errors import UserError
from palestra.rl.types import Demonstration, DemoStep, Message, Task, ToolCall
from palestra.rollout.dialects import DIALECTS
from palestra.rollout.tokens import Chat


class Env(Repair):
    """Its demonstrations write two texts, of which one holds the end of a parameter."""

    def demonstrations(self, tasks: Sequence[Task], seed: int, **_: Any) -> Iterator[Demonstration]:
        for name, text in (("good", f"return {seed}"), ("bad", "x\n</parameter>\ny")):
            call = ToolCall(name="replace", arguments={"line": "1", "text": text})
            message = Message(role="assistant", content="", calls=(call,))
            steps = (DemoStep(message=message, observation="ok"),)
            prompt = (Message(role="user", content=name),)
            yield Demonstration(task_id=name, prompt=prompt, steps=steps)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> HFTokenizer:
    folder = tmp_path_factory.mktemp("tiny")
    shape = {"hidden_size": 8, "intermediate_size": 8, "layers": 1, "heads": 1, "kv_heads": 1}
    build(folder, TinyConfig(vocab_size=400, head_dim=8, **shape), ["x"], Repair.tools, seed=0)
    return HFTokenizer(folder)


@pytest.mark.parametrize(("dialect", "samples"), [("qwen3_coder", 1), ("hermes", 2)])
def test_a_demonstration_that_cannot_be_written_is_left_out(
    tokenizer: HFTokenizer, dialect: str, samples: int
) -> None:
    said: list[str] = []
    config = RunConfig()
    env, chat = Env(None), Chat(tokenizer, DIALECTS[dialect])  # type: ignore[arg-type]
    found = demonstrations(config, env, chat, (), 0, said.append)
    assert len(found) == samples
    assert "return 0" in tokenizer.decode(found[0].token_ids)
    assert len(said) == 2 - samples
    assert all(line.startswith("left out a demonstration of bad: replace:") for line in said)


def test_ptx_demonstrations_vary_and_one_that_cannot_be_written_is_counted_once(
    tokenizer: HFTokenizer,
) -> None:
    said = io.StringIO()
    config = RunConfig.model_validate({"seed": 3, "rl": {"ptx": {"coef": 0.1}}})
    chat = Chat(tokenizer, DIALECTS["qwen3_coder"])
    [source] = ptx_sources(config, Env(None), chat, (), {}, Console(stream=said))  # type: ignore[arg-type]
    drawn = [source.rows.sample(index) for index in range(len(source.rows)) for _ in "twice"]
    texts = {tokenizer.decode(sample.token_ids) for sample in drawn if sample}
    assert len(source.rows) == 2 * EPOCHS and len(texts) == EPOCHS
    assert all(any(f"return {3000 + n}\n" in text for text in texts) for n in range(EPOCHS))
    assert source.rows.left_out == EPOCHS
    assert said.getvalue().count("left out a demonstration of bad: replace:") == 1


def test_a_stage_with_nothing_to_learn_from_is_refused_before_it_starts() -> None:
    sft = {"steps": 1, "corpus_steps": 1}
    config = RunConfig.model_validate({"policy": {"sft": sft}})
    with pytest.raises(UserError, match=r"^policy.sft.steps: palestra/Complete-v0 writes no demon"):
        ensure_taught(config, Complete(None), ())  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"^policy.sft.corpus_steps: .* no references"):
        ensure_taught(config, Env(None), ())  # type: ignore[arg-type]
    ensure_taught(RunConfig(), Complete(None), ())  # type: ignore[arg-type]
