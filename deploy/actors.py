"""Ray actors: thin shells around ordinary classes, and handles that look like those classes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import Any

import ray

from palestra.deploy.sync_client import SyncClient, node
from palestra.policies import counters
from palestra.policies.config import EngineConfig, LearnerConfig
from palestra.policies.process_group import Ranks
from palestra.rl.errors import InfraError, PalestraError
from palestra.rl.types import Batch, Completion, Sample, Sampling


class EngineActor:
    """One vLLM engine in a process of its own; every method is a Ray call."""

    def __init__(
        self, folder: str, config: EngineConfig, max_model_len: int, adapter: str | None = None
    ) -> None:
        see_only_own_gpus()
        from palestra.policies.engine import VllmEngine

        if adapter:
            from palestra.policies.lora_engine import LoraEngine

            self.engine: VllmEngine = LoraEngine(
                folder, config, max_model_len=max_model_len, adapter=adapter
            )
        else:
            self.engine = VllmEngine(folder, config, max_model_len=max_model_len)

    async def start(self) -> None:
        await self.engine.start()

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

    async def update_weights_from(self, content: bytes) -> None:
        """``update_weights`` with a file of another node."""
        from palestra.policies.shm_transfer import shared_file

        with shared_file(len(content)) as path:
            path.write_bytes(content)
            await self.engine.update_weights({"path": str(path)})

    async def node(self) -> str:
        return node()

    async def finish_weight_update(self) -> None:
        await self.engine.finish_weight_update()

    async def close(self) -> None:
        await self.engine.close()


class LearnerActor:
    """One DeepSpeed learner rank in a process of its own."""

    def __init__(
        self,
        folder: str,
        config: LearnerConfig,
        objective: Any,
        ptx_coef: float,
        ranks: Ranks,
        adapter: str | None = None,
    ) -> None:
        see_only_own_gpus()
        from palestra.policies.learner import DeepSpeedLearner

        self.learner = DeepSpeedLearner(
            folder, config, objective, ptx_coef=ptx_coef, ranks=ranks, adapter=adapter
        )

    def connect(self, engines: Sequence[Any]) -> None:
        self.learner.connect(SyncClient(engines))

    def learn(self, batch: Batch) -> Mapping[str, float]:
        return self.learner.learn(batch)

    def logprobs(self, sequences: Sequence[Sequence[int]], temperature: float) -> list[list[float]]:
        return self.learner.logprobs(sequences, temperature)

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

    def devices(self) -> list[str]:
        return [counters.device_id()]

    def environment(self) -> dict[str, str]:
        return counters.environment()

    def counters(self) -> dict[str, int]:
        return self.learner.counters()


def see_only_own_gpus() -> None:
    """Hide the GPUs of others; before torch looks. Ray leaves that to us for an actor without a
    GPU, and for all of them under RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, ray.get_gpu_ids()))


class Remote:
    """Calls the methods of an actor as coroutines: ``await Remote(actor, "engine").sleep()``.

    Raises InfraError when the actor is gone; ``name`` says whose process that was. An error of ours
    comes back as it was raised.
    """

    def __init__(self, actor: Any, name: str) -> None:
        self.actor = actor
        self.name = name

    def __getattr__(self, method: str) -> Any:
        remote = getattr(self.actor, method).remote

        async def call(*args: Any) -> Any:
            try:
                return await remote(*args)
            except ray.exceptions.RayActorError as error:
                why = str(error).strip().splitlines()[-1]
                raise InfraError(f"{self.name} died ({method}): {why}") from error
            except ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, PalestraError):
                    raise error.cause from error  # Ray's own text of it is a whole traceback
                raise

        return call


async def gather(calls: Sequence[Any]) -> list[Any]:
    """All results, in order."""
    return list(await asyncio.gather(*calls))
