"""A real vLLM engine and a real DeepSpeed learner: what the guards read is really there."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from palestra.policies import counters
from palestra.policies.colocate import Colocated, start_up
from palestra.policies.compressed import played_folder
from palestra.policies.config import EngineConfig, LearnerConfig, LoraConfig, QatConfig, TinyConfig
from palestra.policies.engine import VllmEngine
from palestra.policies.learner import DeepSpeedLearner
from palestra.policies.lora import create
from palestra.policies.lora_engine import LoraEngine
from palestra.policies.tiny import build
from palestra.rl.errors import EngineError
from palestra.rl.objectives.k25 import K25
from palestra.rl.objectives.policy_loss import PolicyLoss
from palestra.rl.types import Batch, Completion, Routing, Sample, Sampling

pytestmark = pytest.mark.timeout(1200)
SAMPLE = Sample(
    token_ids=(5, 6, 7, 8),
    loss_mask=(False, True, True, True),
    logprobs=(0.0, -6.0, -6.0, -6.0),
    advantages=(0.0, 1.0, 1.0, 1.0),
    ptx=(0.0,) * 4,
    temperature=1.0,
)


class Calls:
    """The methods of a learner as coroutines: each in a thread, as an actor would be."""

    def __init__(self, learner: DeepSpeedLearner) -> None:
        self.learner = learner

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any) -> Any:
            return await asyncio.to_thread(getattr(self.learner, name), *args)

        return call

    async def devices(self) -> list[str]:
        return [counters.device_id()]

    async def environment(self) -> dict[str, str]:
        return counters.environment()


class Client:
    """vLLM's ``VLLMWeightSyncClient`` from the learner's thread into the engine's loop."""

    def __init__(self, engine: VllmEngine, loop: asyncio.AbstractEventLoop) -> None:
        self.engine = engine
        self.loop = loop

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any) -> Any:
            coroutine = getattr(self.engine, name)(*args)
            return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()

        return call


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """Takes back what vLLM and the learner put into the environment of this process."""
    before = dict(os.environ)
    yield
    test = {name: os.environ[name] for name in ("PYTEST_CURRENT_TEST",) if name in os.environ}
    os.environ.clear()
    os.environ.update(before | test)


async def gather(calls: Any) -> list[Completion]:
    return list(await asyncio.gather(*calls))


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Heads of 32, the fewest that vLLM knows on CPU."""
    folder = tmp_path_factory.mktemp("sync") / "tiny"
    shape = TinyConfig(
        vocab_size=400, hidden_size=64, intermediate_size=64, layers=2, heads=2, kv_heads=1
    )
    build(folder, shape, ["def add(a, b):\n    return a + b\n"], [], seed=0)
    return folder


def test_real_sides_pass_every_guard_until_a_tensor_is_left_out(policy: Path) -> None:
    asyncio.run(steps(policy))
    assert [p for p in multiprocessing.active_children() if p.name == "EngineCore"] == []


@pytest.mark.parametrize("architecture", ["qwen3_moe", "deepseek_v3"])
def test_experts_and_latent_attention_agree_after_every_update(
    architecture: Any, tmp_path: Path
) -> None:
    """vLLM's CPU build packs experts in an order of its own, and rotates heads of its own. One of
    the two trains its experts in four bits, and sends them rounded."""
    small = {"hidden_size": 64, "intermediate_size": 128, "layers": 2, "heads": 2, "kv_heads": 1}
    shape = TinyConfig(vocab_size=400, experts=4, architecture=architecture, **small)
    build(tmp_path, shape, ["def add(a, b):\n"], [], seed=0)
    exaggerate(tmp_path / "model.safetensors")
    qat = QatConfig(enabled=architecture == "qwen3_moe")
    asyncio.run(two_updates(tmp_path, qat))


def exaggerate(weights: Path) -> None:
    """Weights as large as training makes them, so that attention and routers matter."""
    import torch
    from safetensors.torch import load_file, save_file

    torch.manual_seed(0)
    tensors = load_file(weights)
    for name, tensor in tensors.items():
        tensors[name] = tensor * 8 if tensor.dim() > 1 else tensor
        if name.endswith("e_score_correction_bias"):
            tensors[name] = torch.randn_like(tensor) / 10
    save_file(tensors, weights, metadata={"format": "pt"})


def colocate(engine: VllmEngine, learner: Calls) -> Colocated:
    return Colocated(
        engine,
        learner,
        probe=[range(5, 90), range(9, 20)],
        stop_ids=(1,),
        mismatch_limit=1e-5,
        gather=gather,
        say=lambda text: None,
    )


async def two_updates(folder: Path, qat: QatConfig) -> None:
    played = played_folder(folder, folder / "played", qat)
    config = EngineConfig(return_routed_experts=True)
    engine = VllmEngine(str(played), config, max_model_len=256)
    try:
        learner = await start_up(engine, lambda: start_learner(engine, folder, qat))
        colocated = colocate(engine, learner)
        for version in range(2):
            assert (await colocated.publish(version))["mismatch/probe_max"] < 1e-5
            batch = Batch(step=version + 1, samples=(await two_turns(engine),))
            metrics = await colocated.learn(batch)
            assert metrics["mismatch/router_diff_frac"] < 0.01
            assert metrics["mismatch/logprob_abs_diff_max"] < 1e-4
    finally:
        await engine.close()


async def two_turns(engine: VllmEngine) -> Sample:
    """As an episode asks for them: the second turn without the routing of the first, whose prompt
    the engine has in its cache."""
    ids: list[int] = []
    mask: list[bool] = []
    logprobs: list[float] = []
    records: list[Routing] = []
    for context in (range(5, 75), range(20, 23)):
        ids += context
        sampling = Sampling(
            temperature=1.0,
            max_tokens=20,
            seed=3,
            stop_ids=(1,),
            routed=sum(record.tokens for record in records),
        )
        reply = await engine.generate(ids, sampling)
        assert reply.routing is not None
        records.append(reply.routing)
        ids += reply.token_ids
        mask += [False] * len(context) + [True] * len(reply.token_ids)
        logprobs += [0.0] * len(context) + list(reply.logprobs)
        assert sum(record.tokens for record in records) == len(ids) - 1
    return Sample(
        token_ids=tuple(ids),
        loss_mask=tuple(mask),
        logprobs=tuple(logprobs),
        advantages=tuple(map(float, mask)),
        ptx=(0.0,) * len(ids),
        routing=replace(records[0], experts=b"".join(r.experts for r in records)),
    )


async def steps(folder: Path) -> None:
    engine = VllmEngine(str(folder), EngineConfig(), max_model_len=256)
    try:
        learner = await start_up(engine, lambda: start_learner(engine, folder))
        colocated = colocate(engine, learner)
        for version in range(3):
            assert (await colocated.publish(version))["mismatch/probe_max"] < 1e-5
            metrics = await colocated.learn(Batch(step=version + 1, samples=(SAMPLE,)))
            assert metrics["actor/grad_norm"] > 0
            assert metrics["memory/engine_rss_bytes"] > metrics["memory/learner_rss_bytes"]
        await leave_out_a_layer(colocated, learner)
        with pytest.raises(EngineError, match="cannot checksums"):
            await engine.checksums()
    finally:
        await engine.close()


async def start_learner(
    engine: VllmEngine, folder: Path, qat: QatConfig | None = None, adapter: str | None = None
) -> Calls:
    config = LearnerConfig(threads=1, lr=1e-3, qat=qat or QatConfig())
    objective = PolicyLoss(objective=K25(alpha=0.5, beta=2.0, tau=0.05))
    learner = DeepSpeedLearner(str(folder), config, objective, adapter=adapter)
    await asyncio.to_thread(learner.connect, Client(engine, asyncio.get_running_loop()))
    return Calls(learner)


async def leave_out_a_layer(colocated: Colocated, learner: Calls) -> None:
    source = learner.learner._transfer.source
    whole = list(source)
    kept = [(name, tensor) for name, tensor in whole if "layers.1.mlp.down" not in name]
    assert len(kept) == len(whole) - 1
    learner.learner._transfer.source = kept
    with pytest.raises(EngineError, match="left out weights of RowParallelLinear"):
        await colocated.publish(3)


def test_adapters_alone_reach_the_engine_until_a_layer_is_left_out(
    policy: Path, tmp_path: Path
) -> None:
    adapter = tmp_path / "adapter"
    create(policy, adapter, LoraConfig(rank=3, alpha=7, target_modules=["q_proj", "down_proj"]), 0)
    asyncio.run(adapter_updates(policy, str(adapter)))


async def adapter_updates(folder: Path, adapter: str) -> None:
    engine = LoraEngine(str(folder), EngineConfig(), max_model_len=256, adapter=adapter)
    try:
        await engine.start()
        learner = await start_up(engine, lambda: start_learner(engine, folder, adapter=adapter))
        colocated = colocate(engine, learner)
        seen = []
        for version in range(3):
            assert (await colocated.publish(version))["mismatch/probe_max"] < 1e-5
            seen.append(await engine.checksums())
            await colocated.learn(Batch(step=version + 1, samples=(SAMPLE,)))
        before, _, after = seen
        changed = {key for key in after if after[key] != before[key]}
        assert {key.split(".")[-3] for key in changed} == {"qkv_proj", "down_proj"}
        assert all(".lora_" in key for key in changed)
        whole = learner.learner.named_weights(".lora_")
        kept = [(name, tensor) for name, tensor in whole if "layers.1.mlp.down" not in name]
        assert len(kept) == len(whole) - 2
        learner.learner.named_weights = lambda part: kept  # type: ignore[method-assign]
        with pytest.raises(EngineError, match="left 3 of 4 layers with an adapter"):
            await colocated.publish(3)
    finally:
        await engine.close()
