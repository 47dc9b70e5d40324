"""Ray actors: thin shells around ordinary classes, and handles that look like those classes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import Any

import ray

from palestra.policies import counters
from palestra.policies.config import EngineConfig, LearnerConfig
from palestra.rl.types import Batch, Completion, Sample, Sampling


class EngineActor:
    """One vLLM engine in a process of its own; every method is a Ray call."""

    def __init__(self, folder: str, config: EngineConfig, max_model_len: int) -> None:
        see_only_own_gpus()
        from palestra.policies.engine import VllmEngine

        self.engine = VllmEngine(folder, config, max_model_len=max_model_len)

    async def generate(self, token_ids: Sequence[int], sampling: Sampling) -> Completion:
        return await self.engine.generate(token_ids, sampling)

    async def cached_tokens(self, token_ids: Sequence[int]) -> int:
        return await self.engine.cached_tokens(token_ids)

    async def sleep(self) -> bool:
        return await self.engine.sleep()

    async def wake(self, tag: str) -> None:
        await self.engine.wake(tag)

    async def forget(self) -> None:
        await self.engine.forget()

    async def set_version(self, version: int) -> None:
        await self.engine.set_version(version)

    async def get_version(self) -> int:
        return await self.engine.get_version()

    async def checksums(self) -> dict[str, str]:
        return await self.engine.checksums()

    async def reset_weights(self) -> None:
        await self.engine.reset_weights()

    async def devices(self) -> list[str]:
        return await self.engine.devices()

    async def environment(self) -> dict[str, str]:
        return await self.engine.environment()

    async def counters(self) -> dict[str, int]:
        return await self.engine.counters()

    async def init_weight_transfer_engine(self, info: dict[str, Any]) -> None:
        await self.engine.init_weight_transfer_engine(info)

    async def start_weight_update(self) -> None:
        await self.engine.start_weight_update()

    async def update_weights(self, info: Any) -> None:
        await self.engine.update_weights(info)

    async def finish_weight_update(self) -> None:
        await self.engine.finish_weight_update()

    async def close(self) -> None:
        await self.engine.close()


class LearnerActor:
    """One DeepSpeed learner rank in a process of its own."""

    def __init__(self, folder: str, config: LearnerConfig, objective: Any, ptx_coef: float) -> None:
        see_only_own_gpus()
        from palestra.policies.learner import DeepSpeedLearner

        self.learner = DeepSpeedLearner(folder, config, objective, ptx_coef=ptx_coef)

    def connect(self, engine: Any) -> None:
        self.learner.connect(SyncClient(engine))

    def learn(self, batch: Batch) -> Mapping[str, float]:
        return self.learner.learn(batch)

    def logprobs(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        return self.learner.logprobs(sequences)

    def reference_logprobs(self, samples: Sequence[Sample]) -> list[list[float]]:
        return self.learner.reference_logprobs(samples)

    def save(self, folder: str) -> None:
        self.learner.save(folder)

    def load(self, folder: str) -> None:
        self.learner.load(folder)

    def export(self, folder: str) -> None:
        self.learner.export(folder)

    def offload(self, what: str) -> bool:
        return self.learner.offload(what)

    def reload(self) -> None:
        self.learner.reload()

    def send_weights(self) -> None:
        self.learner.send_weights()

    def device(self) -> str:
        return counters.device_id()

    def environment(self) -> dict[str, str]:
        return counters.environment()

    def counters(self) -> dict[str, int]:
        return self.learner.counters()


def see_only_own_gpus() -> None:
    """Hide the GPUs of others; before torch looks. Ray leaves that to us for an actor without a
    GPU, and for all of them under RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, ray.get_gpu_ids()))


class SyncClient:
    """vLLM's ``VLLMWeightSyncClient`` over our engine actor; runs in the learner's process."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        ray.get(self.engine.init_weight_transfer_engine.remote(init_info))

    def start_weight_update(self) -> None:
        ray.get(self.engine.start_weight_update.remote())

    def update_weights(self, update_info: Any) -> None:
        ray.get(self.engine.update_weights.remote(update_info))

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        ray.get(self.engine.finish_weight_update.remote())


class Remote:
    """Calls the methods of an actor as coroutines: ``await Remote(actor).learn(batch)``."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.actor, name)

        async def call(*args: Any) -> Any:
            return await method.remote(*args)

        return call


async def gather(calls: Sequence[Any]) -> list[Any]:
    """All results, in order."""
    return list(await asyncio.gather(*calls))
