"""The sampling side: one vLLM AsyncLLM engine, tokens in and tokens out."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from typing import Any

from palestra.policies.config import EngineConfig
from palestra.rl.errors import EngineError
from palestra.rl.types import Completion, Sampling

CPU_BLOCK = 32
"""Tokens per KV-cache block on CPU."""


class VllmEngine:
    """Implements ``rl.types.Policy``, and the four methods that vLLM's weight-sync client calls.

    ``version`` counts the weight updates that were finished; every completion carries the version
    that sampled it. A failed update leaves the engine unusable: build a new one.
    """

    def __init__(self, folder: str, config: EngineConfig, *, max_model_len: int) -> None:
        _prepare_process(config)
        import torch
        from vllm.config import WeightTransferConfig
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        self.cuda = torch.cuda.is_available()
        self.version = 0
        self.usable = True
        self._ids = itertools.count()
        self._llm = AsyncLLM.from_engine_args(
            AsyncEngineArgs(
                model=folder,
                dtype=config.dtype,
                max_model_len=max_model_len,
                max_num_seqs=config.max_num_seqs,
                max_num_batched_tokens=max(config.max_num_batched_tokens, max_model_len),
                gpu_memory_utilization=config.gpu_memory_utilization,
                # The log-probabilities of the distribution really sampled from.
                logprobs_mode="processed_logprobs",
                generation_config="vllm",
                enable_prefix_caching=True,
                # Seeded sampling on CPU cannot rewind a generator, as chunked prefill does.
                enable_chunked_prefill=self.cuda,
                enforce_eager=not self.cuda,
                enable_sleep_mode=self.cuda,
                distributed_executor_backend="uni",
                # vLLM's default of 128 on CPU would cache nothing of a short conversation.
                block_size=None if self.cuda else CPU_BLOCK,
                weight_transfer_config=WeightTransferConfig(backend=self.backend),
                disable_log_stats=True,
            )
        )

    @property
    def backend(self) -> str:
        """vLLM's weight-transfer backend: CUDA IPC on a GPU, shared memory elsewhere."""
        return "ipc" if self.cuda else "shm"

    async def generate(self, token_ids: Sequence[int], sampling: Sampling) -> Completion:
        """Sample one reply. Raises EngineError when the engine failed or was aborted."""
        if not self.usable:
            raise EngineError("a weight update failed; the engine must be rebuilt")
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        version = self.version
        params = SamplingParams(
            temperature=sampling.temperature,
            max_tokens=sampling.max_tokens,
            seed=sampling.seed,
            stop_token_ids=list(sampling.stop_ids),
            ignore_eos=True,
            logprobs=0,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        final = None
        prompt: Any = {"prompt_token_ids": list(token_ids)}
        async for output in self._llm.generate(prompt, params, str(next(self._ids))):
            final = output
        if final is None or final.outputs[0].finish_reason not in ("stop", "length"):
            raise EngineError("generation was aborted")
        sampled = final.outputs[0]
        ids = tuple(sampled.token_ids)
        logprobs = sampled.logprobs or []
        return Completion(
            token_ids=ids,
            logprobs=tuple(
                float(entry[token].logprob) for token, entry in zip(ids, logprobs, strict=True)
            ),
            version=version,
            finish="stop" if sampled.finish_reason == "stop" else "length",
        )

    async def sleep(self) -> bool:
        """Give the device's memory back; False where there is nothing to give back (CPU)."""
        if self.cuda:
            await self._llm.sleep(level=2, mode="wait")
        return self.cuda

    async def wake(self, tag: str) -> None:
        """Map ``weights`` or ``kv_cache`` again; the engine serves only after both."""
        if self.cuda:
            await self._llm.wake_up(tags=[tag])

    async def forget(self) -> None:
        """Drop the prefix cache: entries computed under other weights must never be read."""
        if not await self._llm.reset_prefix_cache():
            raise EngineError("the prefix cache could not be reset: a request is still running")

    async def init_weight_transfer_engine(self, info: dict[str, Any]) -> None:
        """See vLLM's ``VLLMWeightSyncClient``; the other three methods follow it, too."""
        from vllm.distributed.weight_transfer.base import WeightTransferInitRequest

        await self._llm.init_weight_transfer_engine(WeightTransferInitRequest(init_info=info))

    async def start_weight_update(self) -> None:
        """The engine counts as unusable from here until the update is finished."""
        self.usable = False
        await self._llm.start_weight_update()

    async def update_weights(self, info: Any) -> None:
        """Load one portion of weights."""
        from vllm.distributed.weight_transfer.base import WeightTransferUpdateRequest

        await self._llm.update_weights(WeightTransferUpdateRequest(update_info=info))

    async def finish_weight_update(self, weight_version: str | None = None) -> None:
        """End the update; sampling goes on under the next version."""
        await self._llm.finish_weight_update()
        self.version += 1
        self.usable = True

    def set_version(self, version: int) -> None:
        """Used after a resume, when the weights of a later version were loaded in one go."""
        self.version = version

    async def close(self) -> None:
        """Stop the engine's processes."""
        self._llm.shutdown()


def _prepare_process(config: EngineConfig) -> None:
    """Environment that vLLM reads when it is imported."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(config.kv_cache_gib))
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    os.environ.setdefault("OMP_NUM_THREADS", str(config.threads))
    # One process for scheduler and model; vLLM insists on two on CPU unless told so.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    # Splitting a sequence's keys by load would make its numbers depend on its neighbours.
    os.environ.setdefault("VLLM_CPU_ATTN_SPLIT_KV", "0")
    # CUDA IPC handles cross vLLM's own process boundary pickled; both ends are ours.
    os.environ.setdefault("VLLM_ALLOW_INSECURE_SERIALIZATION", "1")
