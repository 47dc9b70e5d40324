"""What the learner sends: every tensor of its checkpoint, whole, and only when it may."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace as Record
from typing import Any, TypeAlias

import pytest
import torch
from safetensors.torch import load_file, save_file

from palestra.policies import counters, weights
from palestra.policies import learner as module
from palestra.policies.config import LearnerConfig
from palestra.policies.hf_folder import checkpoint_shapes
from palestra.policies.learner import DeepSpeedLearner
from palestra.policies.shm_transfer import ShmTrainerEngine
from palestra.policies.vllm_worker import RELOAD_LOGGER, Unloaded
from palestra.policies.weights import LearnerSource, buckets, size_of
from palestra.rl.errors import EngineError, InfraError, UserError
from palestra.rl.objectives.k25 import K25
from palestra.rl.objectives.policy_loss import PolicyLoss
from palestra.rl.types import Batch

MakeLearner: TypeAlias = Callable[..., DeepSpeedLearner]
OBJECTIVE = PolicyLoss(objective=K25(alpha=0.5, beta=2.0, tau=0.05))
SETTINGS: dict[str, Any] = {"threads": 1, "row_tokens": 64, "micro_batch_tokens": 256}


class Client:
    """vLLM's ``VLLMWeightSyncClient`` without an engine: keeps what it was told to load."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.loaded: dict[str, torch.Tensor] = {}

    def init_weight_transfer_engine(self, info: dict[str, Any]) -> None:
        self.calls.append("init")

    def start_weight_update(self) -> None:
        self.calls.append("start")

    def update_weights(self, info: dict[str, Any]) -> None:
        self.calls.append("update")
        self.loaded = {name: t.clone() for name, t in load_file(info["path"]).items()}

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self.calls.append("finish")


class Cuda:
    """Stands for a trainer engine of CUDA IPC."""

    def __init__(self, source: LearnerSource, buffer: int) -> None:
        self.source = source
        self.packed_buffer_size_bytes = buffer
        self.sent = 0

    def send_weights(self) -> None:
        self.sent += 1


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    """Takes back what vLLM and the learner put into the environment of this process."""
    before = dict(os.environ)
    yield
    test = {name: os.environ[name] for name in ("PYTEST_CURRENT_TEST",) if name in os.environ}
    os.environ.clear()
    os.environ.update(before | test)


@pytest.fixture
def make(tiny: Path) -> MakeLearner:
    def make(folder: Path = tiny, **config: Any) -> DeepSpeedLearner:
        return DeepSpeedLearner(str(folder), LearnerConfig(**SETTINGS | config), OBJECTIVE)

    return make


@pytest.fixture
def on_cuda(make: MakeLearner, monkeypatch: pytest.MonkeyPatch) -> DeepSpeedLearner:
    """A learner that takes itself to be on a GPU once it is built, with torch's calls left out."""
    learner = make()
    learner.device = torch.device("cuda", 0)
    for name in ("synchronize", "ipc_collect", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    monkeypatch.setattr(weights.alloc_conf, "expandable_segments_enabled", lambda: False)
    monkeypatch.setattr(counters, "allocated", lambda: 0)
    learner._transfer = Cuda(LearnerSource(learner), buffer=1 << 30)
    return learner


# What is sent.


@pytest.mark.parametrize("zero_stage", [2, 3])
def test_an_update_brings_every_tensor_whole(
    make: MakeLearner, tiny: Path, monkeypatch: pytest.MonkeyPatch, zero_stage: int
) -> None:
    monkeypatch.setattr(weights, "BUFFER_BYTES", 20_000)  # several gatherings
    client, learner = Client(), make(zero_stage=zero_stage)
    learner.connect(client)
    learner.send_weights()
    expected = load_file(tiny / "model.safetensors")
    assert client.calls == ["init", "start", "update", "finish"]
    assert client.loaded.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(client.loaded[name], tensor)


def test_nothing_stays_in_shared_memory(make: MakeLearner, tmp_path: Path) -> None:
    client = Client()
    client.update_weights = lambda info: 1 / 0  # type: ignore[assignment,method-assign,return-value]
    engine = ShmTrainerEngine(
        client=client, source=LearnerSource(make()), is_sender=True, folder=str(tmp_path)
    )
    with pytest.raises(ZeroDivisionError):
        engine.send_weights()
    assert list(tmp_path.iterdir()) == []


def test_shared_memory_that_is_too_small_is_refused(
    make: MakeLearner, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, learner = Client(), make()
    learner.connect(client)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Record(free=1000))
    with pytest.raises(InfraError, match="/dev/shm has 1000 bytes free"):
        learner.send_weights()
    assert client.calls == ["init"]


def test_buckets_keep_the_order_and_the_limit(make: MakeLearner) -> None:
    metadata = LearnerSource(make()).metadata()
    sizes = {meta.name: size_of(meta) for meta in metadata}
    assert sizes["lm_head.weight"] == 400 * 32 * 4
    groups = list(buckets(metadata, 10_000))
    assert [name for group in groups for name in group] == list(sizes)
    assert all(len(g) == 1 or sum(sizes[name] for name in g) <= 10_000 for g in groups)
    assert 2 < len(groups) < len(metadata)


# Its names and shapes, when the learner meets the engine.


def spoilt(tiny: Path, folder: Path, tensors: Callable[[dict[str, Any]], dict[str, Any]]) -> Path:
    shutil.copytree(tiny, folder)
    save_file(tensors(load_file(tiny / "model.safetensors")), folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t | {"model.extra": t["lm_head.weight"].clone()}, r"missing=\['model\.extra'\]"),
        (lambda t: {n: v for n, v in t.items() if n != "lm_head.weight"}, r"extra=\['lm_head"),
        (
            lambda t: t | {"lm_head.weight": t["lm_head.weight"].T.contiguous()},
            r"'lm_head\.weight': \(\(400, 32\), \(32, 400\)\)",
        ),
    ],
)
def test_tensors_other_than_the_checkpoints_are_refused(
    make: MakeLearner, tiny: Path, tmp_path: Path, change: Callable[[Any], Any], says: str
) -> None:
    learner, client = make(), Client()
    learner.folder = str(spoilt(tiny, tmp_path / "other", change))
    with pytest.raises(EngineError, match=says):
        learner.connect(client)
    assert client.calls == []


def test_a_checkpoint_in_several_files_is_read_by_its_index(tiny: Path, tmp_path: Path) -> None:
    whole = load_file(tiny / "model.safetensors")
    names = sorted(whole)
    files = {"a.safetensors": names[:5], "b.safetensors": names[5:]}
    for file, part in files.items():
        save_file({name: whole[name] for name in part}, tmp_path / file)
    index = {"weight_map": {name: file for file, part in files.items() for name in part}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    shapes = checkpoint_shapes(tmp_path)
    assert shapes == {name: tuple(tensor.shape) for name, tensor in whole.items()}


def test_a_checkpoint_without_safetensors_is_the_users_fault(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no model\.safetensors"):
        checkpoint_shapes(tmp_path)


@pytest.mark.parametrize("tied", [False, True])
def test_a_tied_head_need_not_be_sent(tied: bool) -> None:
    model = Record(
        _keys_to_ignore_on_load_unexpected={"^mtp"}, config=Record(tie_word_embeddings=tied)
    )
    assert weights.not_sent(model) == ["^mtp", *([r"^lm_head\.weight$"] if tied else [])]


# Whether it may be sent.


@pytest.mark.parametrize("bound", [None, "cuda:0"])
def test_a_process_group_bound_to_a_device_is_refused(
    make: MakeLearner, monkeypatch: pytest.MonkeyPatch, bound: str | None
) -> None:
    learner = make()
    group = Record(size=lambda: 1 if bound else 2, bound_device_id=bound)
    monkeypatch.setattr(torch.distributed.distributed_c10d, "_get_default_group", lambda: group)
    with pytest.raises(InfraError, match="the default process group"):
        learner.connect(Client())


def test_on_a_gpu_what_is_sent_fits_the_live_buffer(on_cuda: DeepSpeedLearner) -> None:
    on_cuda.send_weights()
    on_cuda._transfer.packed_buffer_size_bytes = 400 * 32 * 4 - 1
    with pytest.raises(EngineError, match="exceeds the transfer buffer"):
        on_cuda.send_weights()
    assert on_cuda._transfer.sent == 1


@pytest.mark.parametrize("live", [True, None])
def test_on_a_gpu_expandable_segments_are_refused_before_every_transfer(
    on_cuda: DeepSpeedLearner, monkeypatch: pytest.MonkeyPatch, live: bool | None
) -> None:
    on_cuda.send_weights()
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    on_cuda.send_weights()  # what torch says counts
    monkeypatch.setattr(weights.alloc_conf, "expandable_segments_enabled", lambda: live)
    with pytest.raises(UserError, match="expandable_segments"):
        on_cuda.send_weights()
    assert on_cuda._transfer.sent == 2


def test_on_a_gpu_the_buffer_comes_back(
    on_cuda: DeepSpeedLearner, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = iter([0, 1 << 30])
    monkeypatch.setattr(counters, "allocated", lambda: next(held))
    with pytest.raises(InfraError, match="before a transfer"):
        on_cuda.send_weights()


def test_on_a_gpu_reserves_are_given_back_before_the_engine_maps_its_cache(
    on_cuda: DeepSpeedLearner, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for name in ("synchronize", "ipc_collect", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda name=name: calls.append(name))
    monkeypatch.setattr(on_cuda._transfer, "send_weights", lambda: calls.append("send"))
    on_cuda.send_weights()
    assert calls == ["send", "synchronize", "ipc_collect", "empty_cache"]


@pytest.mark.parametrize(
    ("stage", "optimizer", "says"),
    [
        (3, type("AdamW", (), {"offload_states": None}), "AdamW under ZeRO 3"),
        (1, type("BF16_Optimizer", (), {}), "BF16_Optimizer under ZeRO 1"),
        (2, type("ZeRO2", (), {"offload_states": None}), None),
    ],
)
def test_on_a_gpu_an_optimizer_that_cannot_be_offloaded_is_refused(
    tiny: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: int,
    optimizer: type,
    says: str | None,
) -> None:
    import deepspeed

    device = torch.device("cuda", 0)
    monkeypatch.setattr(module.process_group, "join", lambda config, ranks: device)
    engine = Record(optimizer=optimizer())
    monkeypatch.setattr(deepspeed, "initialize", lambda **settings: (engine, None, None, None))
    config = LearnerConfig(**SETTINGS | {"zero_stage": stage})
    if says is None:
        assert DeepSpeedLearner(str(tiny), config, OBJECTIVE).engine is engine
    else:
        with pytest.raises(UserError, match=says):
            DeepSpeedLearner(str(tiny), config, OBJECTIVE)


# What was moved off the device (also where that moves nothing).


@pytest.mark.parametrize(
    ("call", "needs"),
    [
        (lambda learner, folder: learner.learn(Batch(step=1, samples=())), "states"),
        (lambda learner, folder: learner.save(str(folder)), "states"),
        (lambda learner, folder: learner.load(str(folder)), "states"),
        (lambda learner, folder: learner.logprobs([[1, 2]]), "weights"),
        (lambda learner, folder: learner.export(str(folder)), "weights"),
        (lambda learner, folder: learner.named_weights(), "weights"),
        (lambda learner, folder: learner.send_weights(), "weights"),
    ],
)
def test_nothing_uses_what_was_moved_off_the_device(
    make: MakeLearner, tmp_path: Path, call: Callable[[DeepSpeedLearner, Path], object], needs: str
) -> None:
    learner = make()
    learner.connect(Client())
    learner.offload("states")
    if needs == "weights":
        call(learner, tmp_path / "a")
        learner.offload("weights")
    with pytest.raises(InfraError, match=f"{needs} are offloaded"):
        call(learner, tmp_path / "b")
    assert not (tmp_path / "b").exists()
    learner.reload()
    learner.save(str(tmp_path / "b"))
    call(learner, tmp_path / "b")


# What the worker hears.


def test_warnings_of_layers_left_out_are_heard_and_nothing_else() -> None:
    logger = logging.getLogger(RELOAD_LOGGER)
    heard = Unloaded()
    logger.setLevel(logging.ERROR)
    heard.start()
    logger.warning("%s: Failed to load weights", "QKVParallelLinear")
    logger.warning("Allocating %.1f MB", 3.0)
    assert heard.stop() == ["QKVParallelLinear"]
    assert logger.level == logging.ERROR and heard not in logger.handlers
    logger.setLevel(logging.NOTSET)
