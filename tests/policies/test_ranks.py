"""Two learner processes against one: the same losses, the same weights."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from palestra.policies import process_group

SCRIPT = Path(__file__).with_name("learner_rank.py")
DENSE = [f"dense-{optimizer}-{stage}" for optimizer in ("adamw", "muon") for stage in (1, 2, 3)]
EXPERTS = ["experts-adamw-1", "experts-muon-3", "latent-muon-2", "latent-adamw-3"]
SHAPE: dict[str, Any] = {
    "vocab_size": 400,
    "hidden_size": 32,
    "moe_intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
    "initializer_range": 0.2,
}
ROUTER_BIAS = "model.layers.0.mlp.gate.e_score_correction_bias"


def write_experts(folder: Path, tiny: Path) -> None:
    """Qwen3-MoE, and DeepSeek-V3 with a shared expert and a router bias; four experts each."""
    import transformers as hf

    torch.manual_seed(0)
    mixture = hf.Qwen3MoeConfig(**SHAPE, num_key_value_heads=1, head_dim=16, num_experts=4)
    latent = hf.DeepseekV3Config(
        **SHAPE,
        num_key_value_heads=2,
        q_lora_rank=12,
        kv_lora_rank=10,
        qk_nope_head_dim=8,
        qk_rope_head_dim=4,
        v_head_dim=6,
        n_routed_experts=4,
        n_shared_experts=1,
        n_group=1,
        topk_group=1,
        first_k_dense_replace=0,
    )
    policies = {
        "experts": hf.Qwen3MoeForCausalLM(mixture),
        "latent": hf.DeepseekV3ForCausalLM(latent),
    }
    policies["latent"].get_buffer(ROUTER_BIAS).copy_(torch.tensor([0.3, -0.2, 0.1, 0.0]))
    for name, model in policies.items():
        with torch.no_grad():
            for weight in model.model.layers[0].mlp.experts.parameters():
                # Below 0 the largest of a group lies between -8 and -7, where noise decides.
                weight[..., 0] = 0.8
        model.save_pretrained(folder / name)
        hf.AutoTokenizer.from_pretrained(tiny).save_pretrained(folder / name)


def start(policies: Path, out: Path, rank: int, size: int, port: int) -> subprocess.Popen[str]:
    out.mkdir(exist_ok=True)
    arguments = [str(policies), str(out), str(rank), str(size), str(port)]
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def outcomes(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """What one rank wrote, and what two wrote."""
    folder = tmp_path_factory.mktemp("ranks")
    write_experts(folder, tiny)
    (folder / "dense").symlink_to(tiny)
    meeting = process_group.listener()
    processes = [start(folder, folder / "one", 0, 1, 0)]
    processes += [start(folder, folder / "two", rank, 2, meeting.port) for rank in range(2)]
    for process in processes:
        output, _ = process.communicate()
        assert process.returncode == 0, output
    return folder / "one", folder / "two"


def steps(folder: Path, name: str) -> list[dict[str, float]]:
    loaded: Any = json.loads((folder / f"{name}.json").read_text())
    return list(loaded)


def weights(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return dict(load_file(folder / name / "model.safetensors"))


def close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize("name", DENSE + EXPERTS)
def test_two_ranks_learn_what_one_learns(outcomes: tuple[Path, Path], name: str) -> None:
    one, two = outcomes
    for alone, shared in zip(steps(one, name), steps(two, name), strict=True):
        assert shared == pytest.approx(alone, rel=1e-3, abs=1e-5)
    assert any(step["actor/qk_clip_heads"] > 0 for step in steps(one, name)), "QK-Clip took part"
    close(weights(two, name), weights(one, name))
    routed = name in EXPERTS
    assert all(
        (step.get("mismatch/router_diff_frac", 0) > 0) == routed for step in steps(one, name)
    )
    if not routed:
        close(weights(one, name), weights(one, f"{name[:-1]}1"))


@pytest.mark.parametrize("name", DENSE + EXPERTS)
def test_two_ranks_write_a_checkpoint_whole_or_not_at_all(
    outcomes: tuple[Path, Path], name: str
) -> None:
    for folder, size in zip(outcomes, (1, 2), strict=True):
        said = {(folder / f"{name}.refused-{rank}").read_text() for rank in range(size)}
        (line,) = said
        assert re.fullmatch(r"cannot write .*/in-vain: \S.*", line), "all ranks hear of the same"
        assert not list(folder.glob("in-vain*"))
        before, after = weights(folder, name), weights(folder, f"{name}-again")
        assert all(torch.equal(before[tensor], after[tensor]) for tensor in before)
