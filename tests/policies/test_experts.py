"""Mixtures of experts and latent attention: they learn, and go out as a checkpoint holds them."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from palestra.policies.config import LearnerConfig
from palestra.policies.learner import DeepSpeedLearner
from palestra.rl.types import Batch, Sample

ROUTER_BIAS = "model.layers.1.mlp.gate.e_score_correction_bias"
SHAPE: dict[str, Any] = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 48,
    "moe_intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    """Takes back what the learner and vLLM put into the environment of this process."""
    before = dict(os.environ)
    yield
    test = {name: os.environ[name] for name in ("PYTEST_CURRENT_TEST",) if name in os.environ}
    os.environ.clear()
    os.environ.update(before | test)


@pytest.fixture(scope="module", params=["experts", "latent attention and experts"])
def toy(request: pytest.FixtureRequest, tiny: Path, tmp_path_factory: Any) -> Path:
    """Qwen3-MoE, or DeepSeek-V3 with a dense first layer and a router bias."""
    import transformers as hf

    folder: Path = tmp_path_factory.mktemp("toy")
    torch.manual_seed(0)
    if request.param == "experts":
        shape = hf.Qwen3MoeConfig(**SHAPE, num_key_value_heads=1, head_dim=16, num_experts=4)
        model = hf.Qwen3MoeForCausalLM(shape)
    else:
        shape = hf.DeepseekV3Config(
            **SHAPE,
            num_key_value_heads=2,
            q_lora_rank=12,
            kv_lora_rank=10,
            qk_nope_head_dim=8,
            qk_rope_head_dim=4,
            v_head_dim=6,
            n_routed_experts=4,
            n_group=1,
            topk_group=1,
            first_k_dense_replace=1,
        )
        model = hf.DeepseekV3ForCausalLM(shape)
        model.get_buffer(ROUTER_BIAS).copy_(torch.tensor([0.3, -0.2, 0.1, 0.0]))
    model.save_pretrained(folder)
    hf.AutoTokenizer.from_pretrained(tiny).save_pretrained(folder)
    return folder


class Client:
    """vLLM's ``VLLMWeightSyncClient`` without an engine: keeps what it was told to load."""

    def __init__(self) -> None:
        self.loaded: dict[str, torch.Tensor] = {}

    def update_weights(self, info: dict[str, Any]) -> None:
        self.loaded = {name: t.clone() for name, t in load_file(info["path"]).items()}

    def __getattr__(self, name: str) -> Any:
        return lambda *args: None


def supervised() -> Batch:
    rng = random.Random(0)
    samples = [
        Sample(
            token_ids=tuple(rng.randrange(400) for _ in range(20)),
            loss_mask=(False,) * 20,
            logprobs=(0.0,) * 20,
            advantages=(0.0,) * 20,
            ptx=(1.0,) * 20,
        )
        for _ in range(4)
    ]
    return Batch(step=1, samples=tuple(samples))


def start(folder: Path, **config: Any) -> DeepSpeedLearner:
    settings = LearnerConfig(**{"lr": 3e-3, "threads": 1, "row_tokens": 40} | config)
    return DeepSpeedLearner(str(folder), settings, None)


@pytest.mark.parametrize(("zero_stage", "optimizer"), [(2, "adamw"), (2, "muon"), (3, "muon")])
def test_it_learns_and_goes_out_whole(
    toy: Path, tmp_path: Path, zero_stage: int, optimizer: str
) -> None:
    from transformers import AutoModelForCausalLM

    learner, client = start(toy, zero_stage=zero_stage, optimizer=optimizer, qk_clip=True), Client()
    learner.connect(client)
    learner.send_weights()
    saved = load_file(toy / "model.safetensors")
    assert client.loaded.keys() == saved.keys()
    assert all(torch.equal(client.loaded[name], saved[name]) for name in saved)

    losses = [learner.learn(supervised())["ptx/nll"] for _ in range(8)]
    assert losses[-1] < losses[0] - 0.3

    learner.send_weights()
    learner.export(str(tmp_path / "export"))
    exported = load_file(tmp_path / "export" / "model.safetensors")
    assert exported.keys() == saved.keys()
    assert all(torch.equal(client.loaded[name], exported[name]) for name in saved)
    assert not torch.equal(exported["lm_head.weight"], saved["lm_head.weight"])

    ids = supervised().samples[0].token_ids
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "export", dtype=torch.float32)
    with torch.no_grad():
        logits = plain(input_ids=torch.tensor([ids]), use_cache=False).logits[0, :-1]
    expected = torch.log_softmax(logits, -1).gather(-1, torch.tensor(ids)[1:, None])[:, 0]
    assert learner.logprobs([ids])[0][1:] == pytest.approx(expected.tolist(), abs=1e-4)
