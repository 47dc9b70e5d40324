"""vLLM loads the export, and its own kernel for four bits computes with the learner's numbers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from palestra.policies import compressed, qat
from palestra.policies.config import EngineConfig, QatConfig, TinyConfig
from palestra.policies.engine import VllmEngine
from palestra.policies.int4 import fake_quantise
from palestra.policies.tiny import build
from palestra.rl.types import Completion, Sampling

pytestmark = pytest.mark.timeout(1200)
LINEAR = QatConfig(enabled=True, weights="_proj")
PROMPT = tuple(range(5, 40))
FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """Takes back what vLLM put into the environment of this process."""
    before = dict(os.environ)
    yield
    test = {name: os.environ[name] for name in ("PYTEST_CURRENT_TEST",) if name in os.environ}
    os.environ.clear()
    os.environ.update(before | test)


def test_the_packed_kernel_has_the_learners_numbers(tmp_path: Path) -> None:
    policy = policy_in(tmp_path / "floats")
    compressed.export(tmp_path / "floats", tmp_path / "packed", LINEAR)
    layers, reply = asyncio.run(ask(tmp_path / "packed"))

    weights = dict(policy.named_parameters())
    assert len(layers) == 8
    for name, computed in layers.items():
        block, _, leaf = name.rpartition(".")
        parts = [weights[f"{block}.{part}.weight"] for part in FUSED.get(leaf, (leaf,))]
        assert torch.equal(computed, fake_quantise(torch.cat(parts))), name

    floats = gap(policy, reply)
    qat.start(policy, LINEAR)
    rounded = gap(policy, reply)
    assert rounded < 0.01 < floats / 2  # 0.003 and 0.037: bfloat16 alone, and four bits


def policy_in(folder: Path) -> Any:
    """Projections so large that rounding them shows."""
    from transformers import AutoModelForCausalLM

    shape = TinyConfig(
        vocab_size=400, hidden_size=64, intermediate_size=96, layers=2, heads=2, kv_heads=1
    )
    build(folder, shape, ["def add(a, b):\n    return a + b\n"], [], seed=0)
    policy = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            parameter.mul_(4 if "_proj" in name else 1)
    policy.save_pretrained(folder)
    return policy


async def ask(folder: Path) -> tuple[dict[str, torch.Tensor], Completion]:
    """What each packed layer makes of the unit matrix: its weights; and a reply."""

    def weights(worker: Any) -> dict[str, torch.Tensor]:
        found = {}
        for name, layer in worker.model_runner.get_model().named_modules():
            if hasattr(layer, "scheme"):
                one = torch.eye(layer.input_size, dtype=torch.bfloat16)
                found[name] = layer(one)[0].T.contiguous()
        return found

    engine = VllmEngine(str(folder), EngineConfig(dtype="bfloat16"), max_model_len=128)
    try:
        (layers,) = await engine._llm.collective_rpc(weights)
        sampling = Sampling(temperature=1.0, max_tokens=40, seed=1, stop_ids=())
        return layers, await engine.generate(PROMPT, sampling)
    finally:
        await engine.close()


@torch.no_grad()
def gap(policy: Any, reply: Completion) -> float:
    """Mean |engine - learner| of the reply's log-probabilities."""
    ids = torch.tensor([*PROMPT, *reply.token_ids])
    logits = policy(input_ids=ids[None], use_cache=False).logits[0, len(PROMPT) - 1 : -1].float()
    ours = torch.log_softmax(logits, -1).gather(-1, ids[len(PROMPT) :, None])[:, 0]
    return float((ours - torch.tensor(reply.logprobs)).abs().mean())
