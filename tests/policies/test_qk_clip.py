"""QK-Clip on small models of every kind of attention: clipped heads land on tau, others stay."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from palestra.policies import process_group
from palestra.policies.config import LearnerConfig
from palestra.policies.learner import DeepSpeedLearner
from palestra.policies.module import PolicyModule
from palestra.policies.packing import MicroBatch, micro_batches
from palestra.policies.qk_clip import QkClip, max_logits
from palestra.rl.errors import UserError
from palestra.rl.objectives.k25 import K25
from palestra.rl.objectives.policy_loss import PolicyLoss
from palestra.rl.types import Batch, Sample

HEADS = 4
SHAPE: dict[str, Any] = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": HEADS,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}
KINDS = ("mha", "gqa", "bias", "norm", "mla", "mla without lora")


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    """A process group, and afterwards the environment as it was."""
    before = set(os.environ)
    process_group.join(LearnerConfig(threads=1), process_group.ALONE)
    yield
    for name in set(os.environ) - before - {"PYTEST_CURRENT_TEST"}:
        del os.environ[name]


def model_of(kind: str) -> Any:
    """One layer with four heads; large weights, so that logits differ from head to head."""
    import transformers as hf

    torch.manual_seed(0)
    if kind in ("mha", "gqa"):
        groups = HEADS if kind == "mha" else 2
        model = hf.LlamaForCausalLM(hf.LlamaConfig(**SHAPE, num_key_value_heads=groups))
    elif kind == "bias":
        model = hf.Qwen2ForCausalLM(hf.Qwen2Config(**SHAPE, num_key_value_heads=HEADS))
    elif kind == "norm":
        shape = hf.Qwen3Config(**SHAPE, num_key_value_heads=2, head_dim=8)
        model = hf.Qwen3ForCausalLM(shape)
    else:
        shape = hf.DeepseekV3Config(
            **SHAPE,
            num_key_value_heads=HEADS,
            q_lora_rank=None if "without" in kind else 12,
            kv_lora_rank=10,
            qk_nope_head_dim=6,
            qk_rope_head_dim=4,
            v_head_dim=5,
            first_k_dense_replace=1,
        )
        model = hf.DeepseekV3ForCausalLM(shape)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "self_attn" in name and "norm" not in name:
                parameter.normal_(0, 0.3)
    return model.train()


def supervised(*sizes: int) -> tuple[Sample, ...]:
    """A size always gives the same sample."""
    return tuple(
        Sample(
            token_ids=tuple(random.Random(size).choices(range(1, 400), k=size)),
            loss_mask=(False,) * size,
            logprobs=(0.0,) * size,
            advantages=(0.0,) * size,
            ptx=(1.0,) * size,
        )
        for size in sizes
    )


def packed(*sizes: int) -> MicroBatch:
    (micro,) = micro_batches(supervised(*sizes), row_tokens=24, micro_batch_tokens=4096)
    return micro


def heads_of(module: torch.nn.Module, clip: QkClip, micro: MicroBatch) -> torch.Tensor:
    """Largest logit of each head in one forward pass."""
    clip.maxima.clear()
    module(micro)
    return clip.maxima[0]


def values(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def head_rows(kind: str, name: str, tensor: torch.Tensor) -> torch.Tensor:
    """A query or key projection with the head as its first dimension."""
    groups = 2 if kind == "gqa" and "k_proj" in name else HEADS
    return tensor.unflatten(0, (groups, -1))


CHANGED = {
    "mha": {"q_proj.weight", "k_proj.weight"},
    "gqa": {"q_proj.weight"},
    "bias": {"q_proj.weight", "k_proj.weight", "q_proj.bias", "k_proj.bias"},
    "norm": {"q_norm.weight", "k_norm.weight"},
    "mla": {"q_b_proj.weight", "kv_b_proj.weight"},
    "mla without lora": {"q_proj.weight", "kv_b_proj.weight"},
}
"""Parameters of an attention layer that a clip changes."""


def landed(kind: str, before: torch.Tensor, tau: float) -> torch.Tensor:
    """Largest logits of the heads after a clip, from those ``before``."""
    if kind == "norm":  # gains are shared: all heads are scaled by the hottest head's factor
        return before * (tau / before.max())
    return before.clamp_max(tau)


def only_hot_heads_changed(
    kind: str, hot: torch.Tensor, now: dict[str, torch.Tensor], then: dict[str, torch.Tensor]
) -> None:
    """Bit for bit: other parameters, rows of other heads, and values."""
    changed = {name for name in then if not torch.equal(now[name], then[name])}
    assert changed == {f"model.layers.0.self_attn.{name}" for name in CHANGED[kind]}
    for name in changed if kind != "norm" else ():
        new, old = (head_rows(kind, name, weights[name]) for weights in (now, then))
        assert torch.equal(new[~hot], old[~hot])
        if "kv_b_proj" in name:  # the value's part
            assert torch.equal(new[:, 6:], old[:, 6:])


@pytest.mark.parametrize("kind", KINDS)
def test_clipped_heads_land_on_tau_and_the_others_stay(kind: str) -> None:
    model = model_of(kind)
    module = PolicyModule(model, 64)
    clip = QkClip(module, tau=1.0)
    micro = packed(20, 13, 9)
    before = heads_of(module, clip, micro)
    clip.tau = float(before.median() + before.max()) / 2
    hot = before > clip.tau
    assert hot.any() and not hot.all()
    weights = values(model)
    metrics = clip.measure()
    assert metrics["actor/max_logit"] == metrics["actor/max_logit/layer_0"] == before.max()
    assert metrics["actor/qk_clip_heads"] == int(hot.sum())
    with torch.no_grad():
        for parameter, factor in clip.factors.items():
            parameter.mul_(factor)
    after = heads_of(module, clip, micro)
    torch.testing.assert_close(after, landed(kind, before, clip.tau))
    assert kind == "norm" or torch.equal(after[~hot], before[~hot])
    only_hot_heads_changed(kind, hot, values(model), weights)


def test_rotary_and_content_parts_of_latent_attention_shrink_alike() -> None:
    model = model_of("mla")
    clip = QkClip(PolicyModule(model, 64), tau=1.0)
    clip.maxima[0] = torch.tensor([4.0, 0.5, 1.0, 0.1])
    clip.measure()
    layer = model.model.layers[0].self_attn
    query = clip.factors[layer.q_b_proj.weight].view(HEADS, 10)
    key = clip.factors[layer.kv_b_proj.weight].view(HEADS, 11)
    assert query[0].tolist() == [0.5] * 6 + [0.25] * 4  # content by the root, rotary by gamma
    assert key[0].tolist() == [0.5] * 6 + [1.0] * 5  # content by the root, value not at all
    assert (query[1:] == 1).all() and (key[1:] == 1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_below_tau_nothing_happens(kind: str) -> None:
    module = PolicyModule(model_of(kind), 64)
    clip = QkClip(module, tau=1e4)
    heads_of(module, clip, packed(20, 13))
    assert clip.measure()["actor/qk_clip_heads"] == 0
    assert not clip.factors


def test_watching_changes_no_result_and_evaluation_is_not_watched() -> None:
    micro = packed(20, 13, 9)
    plain, watched = (PolicyModule(model_of("gqa"), 64) for _ in range(2))
    clip = QkClip(watched, tau=1.0)
    assert torch.equal(plain(micro)[0], watched(micro)[0])
    clip.maxima.clear()
    watched.eval()
    watched(micro)
    assert not clip.maxima


def test_maxima_are_those_of_the_samples_alone() -> None:
    """Over micro-batches, without padding, without pairs of different samples."""
    module = PolicyModule(model_of("mha"), 64)
    clip = QkClip(module, tau=1.0)
    alone = [heads_of(module, clip, packed(size)) for size in (20, 13, 9)]
    together = heads_of(module, clip, packed(20, 13, 9))
    torch.testing.assert_close(together, torch.stack(alone).amax(0))
    clip.maxima.clear()
    for size in (20, 13, 9):
        module(packed(size))
    torch.testing.assert_close(clip.maxima[0], together)


def test_the_maximum_in_chunks_is_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    query, key = torch.randn(2, 6, 11, 4), torch.randn(2, 3, 11, 4)
    seen = torch.ones(11, 11, dtype=torch.bool).tril().repeat(2, 1, 1, 1)
    seen[1, :, 7:] = False
    logits = query @ key.repeat_interleave(2, dim=1).mT
    expected = logits.masked_fill(~seen, -torch.inf).amax((0, 2, 3))
    monkeypatch.setattr("palestra.policies.qk_clip.QUERIES_AT_ONCE", 3)
    torch.testing.assert_close(max_logits(query, key, torch.tensor([11, 7])), expected)


def test_attention_that_cannot_be_rescaled_is_refused() -> None:
    import transformers as hf

    shape = hf.Gemma3TextConfig(**SHAPE, num_key_value_heads=2, head_dim=8)
    with pytest.raises(UserError, match="query norm of Gemma3Attention is not supported"):
        QkClip(PolicyModule(hf.Gemma3ForCausalLM(shape), 64), tau=1.0)


# In the learner: masters and working weights under every ZeRO stage.


@pytest.mark.parametrize(
    ("kind", "zero_stage", "dtype", "optimizer"),
    [
        ("gqa", 1, "float32", "muon"),
        ("bias", 1, "bfloat16", "adamw"),
        ("mla without lora", 2, "float32", "adamw"),
        ("mha", 2, "bfloat16", "muon"),
        ("norm", 3, "float32", "adamw"),
        ("mla", 3, "bfloat16", "muon"),
    ],
)
def test_a_step_without_learning_only_clips(
    tiny: Path, tmp_path: Path, kind: str, zero_stage: int, dtype: str, optimizer: str
) -> None:
    from deepspeed.utils import safe_get_full_fp32_param
    from transformers import AutoTokenizer

    model_of(kind).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny).save_pretrained(tmp_path)
    settings: dict[str, Any] = {"zero_stage": zero_stage, "optimizer": optimizer, "dtype": dtype}
    config = LearnerConfig(qk_clip=True, threads=1, **settings)
    learner = DeepSpeedLearner(
        str(tmp_path), config, PolicyLoss(objective=K25(alpha=0.5, beta=2.0, tau=0.0))
    )
    learner.config = learner.config.model_copy(update={"lr": 0.0})
    what = Batch(step=1, samples=supervised(20, 13, 9))

    def weights() -> dict[str, torch.Tensor]:
        return {name: tensor.detach().clone() for name, tensor in learner.named_weights()}

    @torch.no_grad()
    def heads() -> torch.Tensor:
        learner.engine.train()
        found = heads_of(learner.engine, clip, packed(20, 13, 9))
        clip.maxima.clear()
        return found

    clip = learner.qk_clip
    assert clip is not None
    then, before = weights(), heads()
    clip.tau = float(before.max()) * 1.1
    assert learner.learn(what)["actor/qk_clip_heads"] == 0
    unclipped = weights()
    assert all(torch.equal(unclipped[name], then[name]) for name in then)
    clip.tau = float(before.median() + before.max()) / 2
    hot = before > clip.tau
    assert learner.learn(what)["actor/qk_clip_heads"] == int(hot.sum())
    now = weights()
    close = 1e-5 if dtype == "float32" else 2e-2
    torch.testing.assert_close(heads(), landed(kind, before, clip.tau), rtol=close, atol=0.0)
    only_hot_heads_changed(kind, hot, now, then)
    for name, parameter in learner.engine.module.model.named_parameters():
        master = safe_get_full_fp32_param(parameter)
        assert torch.equal(master.to(now[name].dtype), now[name])
