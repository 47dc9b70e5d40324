"""Training with weights in four bits: learner, engine and export hold the same numbers."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from palestra.deploy.cli import main
from palestra.policies import compressed, qat
from palestra.policies.config import LearnerConfig, QatConfig
from palestra.policies.int4 import fake_quantise
from palestra.policies.learner import DeepSpeedLearner
from palestra.rl.errors import UserError
from palestra.rl.types import Batch, Sample

ON = QatConfig(enabled=True)
IDS = tuple(random.Random(0).randrange(400) for _ in range(20))
SHAPE: dict[str, Any] = {
    "vocab_size": 400,
    "hidden_size": 64,
    "intermediate_size": 96,
    "moe_intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    """Takes back what the learner put into the environment of this process."""
    before = dict(os.environ)
    yield
    test = {name: os.environ[name] for name in ("PYTEST_CURRENT_TEST",) if name in os.environ}
    os.environ.clear()
    os.environ.update(before | test)


@pytest.fixture(scope="module")
def toy(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Qwen3-MoE with a dense first layer, in some files; experts so large that rounding shows."""
    import transformers as hf

    folder: Path = tmp_path_factory.mktemp("toy")
    torch.manual_seed(0)
    model = hf.Qwen3MoeForCausalLM(hf.Qwen3MoeConfig(**SHAPE, mlp_only_layers=[0]))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(8 if ".experts." in name else 1)
    model.save_pretrained(folder, max_shard_size="200KB")
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


def batch() -> Batch:
    sample = Sample(
        token_ids=IDS,
        loss_mask=(False,) * 20,
        logprobs=(0.0,) * 20,
        advantages=(0.0,) * 20,
        ptx=(1.0,) * 20,
    )
    return Batch(step=1, samples=(sample,))


def start(folder: Path, **config: Any) -> DeepSpeedLearner:
    settings = {"lr": 3e-3, "threads": 1, "row_tokens": 40, "qat": ON} | config
    return DeepSpeedLearner(str(folder), LearnerConfig(**settings), None)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: t for file in folder.glob("*.safetensors") for name, t in load_file(file).items()}


def model(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


@torch.no_grad()
def logprobs(policy: Any) -> list[float]:
    logits = policy(input_ids=torch.tensor([IDS]), use_cache=False).logits[0, :-1]
    scores = torch.log_softmax(logits, -1).gather(-1, torch.tensor(IDS)[1:, None])
    return list(scores[:, 0].tolist())


@pytest.mark.parametrize(("zero_stage", "optimizer"), [(2, "adamw"), (3, "muon")])
def test_learner_engine_and_pack_hold_the_same_bits(
    toy: Path, tmp_path: Path, zero_stage: int, optimizer: str
) -> None:
    learner, client = start(toy, zero_stage=zero_stage, optimizer=optimizer), Client()
    losses = [learner.learn(batch())["ptx/nll"] for _ in range(4)]
    assert losses[-1] < losses[0] - 0.3
    learner.connect(client)
    learner.send_weights()
    learner.export(str(tmp_path / "floats"))
    compressed.export(tmp_path / "floats", tmp_path / "packed", ON)

    floats, words = tensors(tmp_path / "floats"), tensors(tmp_path / "packed")
    unpacked = tensors_of(model(tmp_path / "packed"))  # by compressed-tensors itself
    assert client.loaded.keys() == floats.keys() == unpacked.keys()
    for name, weight in floats.items():
        assert torch.equal(client.loaded[name], unpacked[name]), name
        assert torch.equal(unpacked[name], weight) != (".experts." in name), name
        assert (f"{name}_packed" in words) == (".experts." in name)
        assert (name in words) != (".experts." in name)
    ours = learner.logprobs([IDS])[0][1:]
    assert ours == pytest.approx(logprobs(model(tmp_path / "packed")), abs=1e-5)
    assert ours != pytest.approx(logprobs(model(tmp_path / "floats")), abs=1e-4)


def tensors_of(policy: Any) -> dict[str, torch.Tensor]:
    """As a checkpoint holds them; ``policy`` was unpacked when it was loaded."""
    from transformers.core_model_loading import revert_weight_conversion

    del policy._weight_conversions  # those of packed experts are not reverted
    return dict(revert_weight_conversion(policy, dict(policy.named_parameters())))


def test_a_gradient_is_that_of_the_rounded_weights(toy: Path) -> None:
    trained, plain = model(toy), model(toy)
    names = qat.start(trained, ON)
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            parameter.copy_(fake_quantise(parameter) if name in names else parameter)
    ids = torch.tensor([IDS])
    for policy in (trained, plain):
        policy(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    wanted = dict(plain.named_parameters())
    assert names == {f"model.layers.1.mlp.experts.{part}" for part in ("gate_up_proj", "down_proj")}
    for name, parameter in trained.named_parameters():
        assert torch.equal(parameter.grad, wanted[name].grad), name


def test_rounding_leaves_no_trace_after_a_forward_pass(toy: Path) -> None:
    policy = model(toy)
    before = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    assert qat.start(policy, QatConfig()) == frozenset()
    floats = logprobs(policy)
    qat.start(policy, ON)
    assert logprobs(policy) != floats
    after = policy.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    experts = policy.get_submodule("model.layers.1.mlp.experts")
    assert isinstance(experts.down_proj, torch.nn.Parameter)


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("nothing", "the model has no weight whose name contains 'nothing'"),
        ("embed", "embed_tokens.weight of Embedding cannot be quantised"),
        (r"experts\.0\.", "is trained as one, but model.layers.1.mlp.experts.1."),
        (r"mlp\.gate\.", "model.layers.1.mlp.gate.weight of Qwen3MoeTopKRouter cannot"),
    ],
)
def test_what_cannot_be_quantised_is_refused(toy: Path, pattern: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        qat.find(model(toy), pattern)


def test_matrices_that_do_not_divide_into_groups_are_refused() -> None:
    import transformers as hf

    shape = hf.Qwen3MoeConfig(**SHAPE | {"moe_intermediate_size": 24})
    with torch.device("meta"):
        policy = hf.Qwen3MoeForCausalLM(shape)
    with pytest.raises(UserError, match=r"experts\.0\.down_proj\.weight is 64x24; it must be"):
        qat.find(policy, ON.weights)


def test_experts_with_their_inputs_in_rows_are_refused() -> None:
    import transformers as hf

    shape = hf.GptOssConfig(num_hidden_layers=1, hidden_size=64, intermediate_size=32)
    with torch.device("meta"):
        policy = hf.GptOssForCausalLM(shape)
    with pytest.raises(UserError, match="of GptOssExperts cannot be quantised"):
        qat.find(policy, r"\.experts\.")


def test_the_command_packs_once(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "packed"
    (toy / "latest").write_text("native")  # as DeepSpeed leaves it in a checkpoint
    arguments = ["export", str(toy), str(target)]
    assert main(arguments) == 2
    assert "was not trained for four bits" in capsys.readouterr().err
    arguments += ["--set", "policy.learner.qat.enabled=true"]
    assert main(arguments) == 0
    config = json.loads((target / "config.json").read_text())["quantization_config"]
    assert "model.layers.1.mlp.gate" in config["ignore"] and "lm_head" in config["ignore"]
    assert not [name for name in config["ignore"] if ".experts." in name]
    assert (target / "tokenizer.json").is_file() and not (target / "latest").exists()
    assert compressed.played_folder(target, tmp_path / "none", ON) == target
    assert main(arguments) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["export", str(target), str(tmp_path / "twice"), *arguments[3:]]) == 2
    assert "is quantised already" in capsys.readouterr().err


@pytest.mark.parametrize("config", ["{", "{}", '{"model_type": "vit"}'])
def test_a_folder_without_a_policy_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], config: str
) -> None:
    (tmp_path / "config.json").write_text(config)
    words = ["export", str(tmp_path), str(tmp_path / "packed")]
    assert main([*words, "--set", "policy.learner.qat.enabled=true"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_rounded_copy_is_what_is_sent(toy: Path, tmp_path: Path) -> None:
    assert compressed.played_folder(toy, tmp_path / "none", QatConfig()) == toy
    played = compressed.played_folder(toy, tmp_path / "played", ON)
    rounded = tensors(played)
    for name, weight in tensors(toy).items():
        wanted = fake_quantise(weight) if ".experts." in name else weight
        assert torch.equal(rounded[name], wanted), name
    assert not compressed.is_packed(played)
