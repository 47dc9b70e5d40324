"""What adapters cost and save on the way to the engine, beside all weights.

    .venv/bin/python bench/lora.py [--hidden 512] [--layers 8] [--rank 16] [--updates 4]

Writes bench/results/lora.json: bytes and CPU seconds (both sides) of a weight update, the largest
gap between the log-probabilities of engine and learner, and CPU seconds per sampled token. Engine
and learner are real, in float32, on a random model.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any

import psutil
from report import machine_of, write_report

from palestra.policies import counters
from palestra.policies.colocate import Colocated, start_up
from palestra.policies.config import EngineConfig, LearnerConfig, LoraConfig, TinyConfig
from palestra.policies.engine import VllmEngine
from palestra.policies.learner import DeepSpeedLearner
from palestra.policies.lora import MARK, create
from palestra.policies.lora_engine import LoraEngine
from palestra.policies.tiny import build
from palestra.rl.objectives.k25 import K25
from palestra.rl.objectives.policy_loss import PolicyLoss
from palestra.rl.types import Batch, Completion, Sample, Sampling

RESULT = Path(__file__).resolve().parent / "results" / "lora.json"
CONTEXT = 512
REPLIES, TOKENS = 16, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--updates", type=int, default=4)
    args = parser.parse_args()
    figures: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory() as folder:
        model, adapter = Path(folder) / "model", Path(folder) / "adapter"
        shape = TinyConfig(
            vocab_size=4096,
            hidden_size=args.hidden,
            intermediate_size=3 * args.hidden,
            layers=args.layers,
            heads=args.hidden // 32,
            kv_heads=args.hidden // 64,
        )
        build(model, shape, ["def add(a, b):\n    return a + b\n"], [], seed=0)
        create(model, adapter, LoraConfig(rank=args.rank), seed=0)
        for name, start in (("all weights", None), ("adapters", str(adapter))):
            for what, value, unit in asyncio.run(measure(str(model), start, args.updates)):
                figures[f"{name}: {what}"] = {"value": value, "unit": unit, "target": ""}
    how = f"bench/lora.py, hidden {args.hidden}, layers {args.layers}, rank {args.rank}"
    write_report(RESULT, figures, how, machine_of())


async def measure(model: str, adapter: str | None, updates: int) -> list[tuple[str, float, str]]:
    config = EngineConfig()
    engine = (
        LoraEngine(model, config, max_model_len=CONTEXT, adapter=adapter)
        if adapter
        else VllmEngine(model, config, max_model_len=CONTEXT)
    )
    try:
        await engine.start()
        learner = await start_up(engine, lambda: start_learner(engine, model, adapter))
        colocated = Colocated(
            engine,
            learner,
            probe=[range(5, 200), range(9, 60)],
            stop_ids=(1,),
            mismatch_limit=1e-4,
            gather=gather,
            say=print,
        )
        gaps = []
        for version in range(updates):
            gaps.append((await colocated.publish(version))["mismatch/probe_max"])
            await colocated.learn(Batch(step=version + 1, samples=(sample(),)))
        gaps.append((await colocated.publish(updates))["mismatch/probe_max"])
        tensors = learner.learner.named_weights(MARK if adapter else "")
        sent = sum(tensor.nbytes for _, tensor in tensors)
        return [
            ("sent per update", sent / 2**20, "MiB"),
            ("update", sum(learner.seconds) / len(learner.seconds), "CPU s"),
            ("largest log-probability gap", max(gaps), ""),
            ("sampling", await sampling_cost(engine), "CPU ms per token"),
        ]
    finally:
        await engine.close()


async def start_learner(engine: VllmEngine, model: str, adapter: str | None) -> Calls:
    loss = PolicyLoss(objective=K25(alpha=0.5, beta=2.0, tau=0.05))
    learner = DeepSpeedLearner(model, LearnerConfig(threads=1, lr=1e-3), loss, adapter=adapter)
    await asyncio.to_thread(learner.connect, Client(engine, asyncio.get_running_loop()))
    return Calls(learner)


def sample() -> Sample:
    size = 64
    return Sample(
        token_ids=tuple(range(10, 10 + size)),
        loss_mask=(False, *(True,) * (size - 1)),
        logprobs=(0.0, *(-8.3,) * (size - 1)),
        advantages=(0.0, *(1.0,) * (size - 1)),
        ptx=(0.0,) * size,
    )


async def sampling_cost(engine: VllmEngine) -> float:
    before = cpu_seconds()
    settings = [
        Sampling(temperature=1.0, max_tokens=TOKENS, seed=seed, stop_ids=())
        for seed in range(REPLIES)
    ]
    await gather([engine.generate(range(5 + n, 25 + n), s) for n, s in enumerate(settings)])
    return 1000 * (cpu_seconds() - before) / (REPLIES * TOKENS)


def cpu_seconds() -> float:
    """Of this process and those that it started: the engine's among them."""
    own = psutil.Process()
    times = [process.cpu_times() for process in (own, *own.children(recursive=True))]
    return float(sum(time.user + time.system for time in times))


async def gather(calls: Sequence[Awaitable[Completion]]) -> list[Completion]:
    return list(await asyncio.gather(*calls))


class Calls:
    """The learner's methods as coroutines; notes what sending weights takes."""

    def __init__(self, learner: DeepSpeedLearner) -> None:
        self.learner = learner
        self.seconds: list[float] = []

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any) -> Any:
            return await asyncio.to_thread(getattr(self.learner, name), *args)

        return call

    async def send_weights(self) -> None:
        before = cpu_seconds()
        await asyncio.to_thread(self.learner.send_weights)
        self.seconds.append(cpu_seconds() - before)

    async def device(self) -> str:
        return counters.device_id()

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


if __name__ == "__main__":
    main()
