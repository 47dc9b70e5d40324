"""The sampling side: one vLLM AsyncLLM engine, tokens in and tokens out."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import multiprocessing
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from palestra.policies import counters, guards
from palestra.policies.config import EngineConfig
from palestra.policies.routing import record_of
from palestra.rl.errors import EngineError
from palestra.rl.types import Completion, Sampling

CPU_BLOCK = 32
"""Tokens per KV-cache block on CPU."""
DRAIN_S = 120.0
"""How long replies that are still running may keep the engine from sleeping."""
EXIT_S = 10.0
"""How long the engine's processes have to stop by themselves."""
ONE_TOKEN = Sampling(temperature=1.0, max_tokens=1, seed=0, stop_ids=())
UNNAMED = "default"
"""vLLM's version of weights that were never updated."""


class VllmEngine:
    """Implements ``rl.types.Policy``, and the four methods that vLLM's weight-sync client calls.

    Every completion carries the version of the weights that sampled it, as vLLM counts it. Calls
    are taken in the order of ``guards.next_state`` only; one that fails leaves the engine unusable:
    build a new one. On CPU the same calls are made, and sleep gives nothing back.
    """

    sleep_level = 2  # weights are dropped: the update after each sleep brings all of them

    def __init__(self, folder: str, config: EngineConfig, *, max_model_len: int) -> None:
        _prepare_process(config)
        import torch

        self.cuda = torch.cuda.is_available()
        self._state = "awake"
        self._running = 0
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._ids = itertools.count()
        before = set(multiprocessing.active_children())
        args = self._engine_args()
        self._llm = _build(folder, config, max_model_len, cuda=self.cuda, **args)
        self._processes = set(multiprocessing.active_children()) - before

    async def start(self) -> None:
        """What is left to do before the first call; here nothing."""

    async def generate(self, token_ids: Sequence[int], sampling: Sampling) -> Completion:
        """Sample one reply. Raises EngineError when the engine failed, sleeps or was aborted."""
        final = await self._ask(token_ids, _params(sampling))
        sampled = final.outputs[0]
        if sampled.finish_reason not in ("stop", "length"):
            raise EngineError("generation was aborted")
        ids = tuple(sampled.token_ids)
        logprobs = sampled.logprobs or []
        version = guards.one_version([span.version for span in sampled.weight_versions or []])
        return Completion(
            token_ids=ids,
            logprobs=tuple(
                float(entry[token].logprob) for token, entry in zip(ids, logprobs, strict=True)
            ),
            version=_number(version),
            finish="stop" if sampled.finish_reason == "stop" else "length",
            routing=None if sampled.routed_experts is None else record_of(sampled.routed_experts),
        )

    async def cached_tokens(self, token_ids: Sequence[int]) -> int:
        """How much of a prompt the prefix cache holds. The prompt is ``token_ids`` over and over,
        for more than two blocks of the cache; asking puts it there."""
        (block, *_) = await self._llm.collective_rpc("palestra_cache_block")
        prompt = list(itertools.islice(itertools.cycle(token_ids), 2 * block + 1))
        final = await self._ask(prompt, _params(ONE_TOKEN))
        return int(final.num_cached_tokens)

    async def _ask(self, token_ids: Sequence[int], params: Any) -> Any:
        guards.next_state(self._state, "generate")
        self._running += 1
        self._quiet.clear()
        try:
            final = None
            prompt: Any = {"prompt_token_ids": list(token_ids)}
            async for output in self._generate(prompt, params):
                final = output
        finally:
            self._running -= 1
            if not self._running:
                self._quiet.set()
        if final is None:
            raise EngineError("generation was aborted")
        return final

    def _engine_args(self) -> dict[str, Any]:
        """What a kind of engine asks of vLLM beside ``_build``."""
        return {}

    def _generate(self, prompt: Any, params: Any) -> AsyncIterator[Any]:
        return self._llm.generate(prompt, params, str(next(self._ids)))  # type: ignore[no-any-return]

    @contextlib.contextmanager
    def _turn(self, call: str) -> Iterator[None]:
        after = guards.next_state(self._state, call)
        self._state = call  # from here nothing is allowed, and a failure leaves it so
        yield
        self._state = after

    async def sleep(self) -> bool:
        """Give the device's memory back; False where there is nothing to give back (CPU).

        Requests that nobody waits for any more (an episode's time limit) are let finish first.
        """
        with self._turn("sleep"):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._quiet.wait(), DRAIN_S)
            guards.drained(self._running)
            await self._llm.sleep(level=self.sleep_level, mode="wait")
            guards.fell_asleep(await self._llm.is_sleeping())
        return self.cuda

    async def wake(self, tag: str) -> None:
        """Map ``weights`` or ``kv_cache`` again, in this order; the engine serves after both."""
        with self._turn(f"wake {tag}"):
            guards.woke(tag, await self._llm.wake_up(tags=[tag]))

    async def forget(self) -> None:
        """Drop every cache: entries computed under other weights must never be read."""
        with self._turn("forget"):
            if not await self._llm.reset_prefix_cache():
                raise EngineError("the prefix cache could not be reset: a request is still running")
            await self._llm.reset_mm_cache()
            await self._llm.reset_encoder_cache()

    async def checksums(self) -> dict[str, str]:
        """SHA-256 of every parameter, by worker and name; copies all of them to the host."""
        with self._turn("checksums"):
            workers: list[dict[str, str]] = await self._llm.compute_weight_checksums()
        return {key: digest for worker in workers for key, digest in worker.items()}

    async def reset_weights(self) -> None:
        """Zero every parameter: the update that follows has to bring all of them."""
        with self._turn("reset weights"):
            await self._llm.collective_rpc("reset_weights")

    async def devices(self) -> list[str]:
        """Where each worker sits."""
        return list(await self._llm.collective_rpc("palestra_device"))

    async def environment(self) -> dict[str, str]:
        """The variables that matter, as the first worker has them."""
        return dict((await self._llm.collective_rpc("palestra_environment"))[0])

    async def counters(self) -> dict[str, int]:
        """Sums over this process and its workers."""
        workers = await self._llm.collective_rpc("palestra_counters")
        total = Counter(counters.host())
        for worker in workers:
            total.update(worker)
        return dict(total)

    async def init_weight_transfer_engine(self, info: dict[str, Any]) -> None:
        """See vLLM's ``VLLMWeightSyncClient``; the other three methods follow it, too."""
        from vllm.distributed.weight_transfer.base import WeightTransferInitRequest

        await self._llm.init_weight_transfer_engine(WeightTransferInitRequest(init_info=info))

    async def start_weight_update(self) -> None:
        """Nothing but the rest of the update is allowed from here on."""
        with self._turn("start update"):
            await self._llm.collective_rpc("palestra_watch")
            await self._llm.start_weight_update()

    async def update_weights(self, info: Any) -> None:
        """Load one portion of weights."""
        from vllm.distributed.weight_transfer.base import WeightTransferUpdateRequest

        with self._turn("update"):
            await self._llm.update_weights(WeightTransferUpdateRequest(update_info=info))

    async def finish_weight_update(self) -> None:
        """End the update; ``set_version`` names it."""
        with self._turn("finish update"):
            await self._llm.finish_weight_update()
            tied = self._llm.vllm_config.model_config.hf_config.tie_word_embeddings
            for layers in await self._llm.collective_rpc("palestra_unloaded"):
                guards.all_loaded(layers, tied=tied)

    async def set_version(self, version: int) -> None:
        """What the weights count as from now on."""
        await self._llm.update_weight_version(str(version))

    async def get_version(self) -> int:
        """What vLLM says its weights are; 0 before the first ``set_version``."""
        return _number(await self._llm.get_weight_version())

    async def close(self) -> None:
        """Stop the engine's processes, and see that they are gone: one left over keeps a GPU."""
        self._state = "closed"
        self._llm.shutdown()
        del self._llm  # its destructor fails once the interpreter goes down
        for process in self._processes:
            await asyncio.to_thread(process.join, EXIT_S)
            if process.is_alive():
                process.kill()


def _build(
    folder: str, config: EngineConfig, max_model_len: int, *, cuda: bool, **more: Any
) -> Any:
    from vllm.config import WeightTransferConfig
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    return AsyncLLM.from_engine_args(
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
            enable_chunked_prefill=cuda,
            enforce_eager=not cuda,
            enable_sleep_mode=cuda,
            distributed_executor_backend="uni",
            worker_extension_cls="palestra.policies.vllm_worker.WorkerReport",
            # vLLM's default of 128 on CPU would cache nothing of a short conversation.
            block_size=None if cuda else CPU_BLOCK,
            weight_transfer_config=WeightTransferConfig(backend="ipc" if cuda else "shm"),
            disable_log_stats=True,
            enable_return_routed_experts=config.return_routed_experts,
            **more,
        )
    )


def _params(sampling: Sampling) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=sampling.temperature,
        max_tokens=sampling.max_tokens,
        seed=sampling.seed,
        stop_token_ids=list(sampling.stop_ids),
        ignore_eos=True,
        logprobs=0,
        routed_experts_prompt_start=sampling.routed,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _number(version: str) -> int:
    return 0 if version == UNNAMED else int(version)


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
